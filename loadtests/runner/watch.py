"""The watch: a server's metrics page and the memory of its processes, over the time of a run."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import msgspec
import psutil
from prometheus_client.parser import text_string_to_metric_families

from loadtests.runner.errors import TargetError
from loadtests.ticks import NONE, BucketTicks

TIMEOUT_SECONDS = 5.0
MAX_SAMPLES = 1200

# What is kept: name here, name on the page, labels that must agree. Samples of one name are added up.
SERIES: Mapping[str, tuple[str, Mapping[str, str]]] = MappingProxyType(
    {
        "server_memory": ("limner_server_process_resident_memory_bytes", {}),
        "process_memory": ("process_resident_memory_bytes", {}),
        "engine_memory": ("limner_engine_process_resident_memory_bytes", {}),
        "queue_depth": ("limner_queue_depth", {}),
        "images_running": ("limner_images_running", {}),
        "requests_in_flight": ("limner_requests_in_flight", {}),
        "rows_useful": ("limner_rows_total", {"kind": "useful"}),
        "rows_padded": ("limner_rows_total", {"kind": "padded"}),
        "busy_seconds": ("limner_engine_busy_seconds_total", {}),
        "encodes": ("limner_image_encodes_total", {}),
        "cache_hits": ("limner_reference_cache_hits_total", {}),
        "cache_misses": ("limner_reference_cache_misses_total", {}),
        "cache_coalesced": ("limner_reference_cache_coalesced_total", {}),
        "cache_bytes": ("limner_reference_cache_bytes", {}),
        "engine_restarts": ("limner_engine_restarts_total", {}),
    }
)
_NAMES = tuple({name for name, _ in SERIES.values()})

# Kept by bucket, added up over engines.
TICK_COUNT, TICK_SECONDS = "limner_tick_seconds_count", "limner_tick_seconds_sum"


class Sample(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Readings at a moment (seconds from the start of the load, or of the calibration), by the names of `SERIES`;
    `tree_memory` is the resident memory of a process and its children, in bytes. `ticks` are by bucket, in rows.
    """

    at: float
    values: dict[str, float]
    ticks: dict[int, BucketTicks] = {}


class Watch:
    """Samples what it is given, a metrics page, a process, both or neither, until it is cancelled."""

    def __init__(self, url: str | None, pid: int | None) -> None:
        self._url = url
        self._pid = pid
        self.samples: list[Sample] = []
        self.calibration: list[Sample] = []
        """Readings of the calibration, where there was one: see `calibration.calibrate`."""
        self.missed = 0
        if pid is not None and not psutil.pid_exists(pid):
            raise TargetError(f"--pid: there is no process {pid}")

    @property
    def sees(self) -> bool:
        """Whether there is anything to sample."""
        return self._url is not None or self._pid is not None

    async def probe(self) -> None:
        """Read once, to no purpose but to know that it can be done. Raises TargetError."""
        await asyncio.to_thread(self._read)

    async def sample(self, now: Callable[[], float], into: list[Sample] | None = None) -> None:
        """Take one sample, by default of the run. Raises TargetError when the page or the process cannot be read."""
        if self.sees:
            values, ticks = await asyncio.to_thread(self._read)
            (self.samples if into is None else into).append(Sample(at=now(), values=values, ticks=ticks))

    async def run(self, now: Callable[[], float], seconds: float) -> None:
        """Take samples through a run of so many seconds; one that fails is counted."""
        period = max(1.0, seconds / MAX_SAMPLES)
        while self.sees:
            await asyncio.sleep(period)
            try:
                await self.sample(now)
            except TargetError:
                self.missed += 1

    def _read(self) -> tuple[dict[str, float], dict[int, BucketTicks]]:
        page = "" if self._url is None else _fetch(self._url)
        values = parse_page(page)
        if self._pid is not None:
            values["tree_memory"] = _tree_memory(self._pid)
        return values, parse_ticks(page)


def parse_page(page: str) -> dict[str, float]:
    """Return the readings of `SERIES` that a metrics page has."""
    values: dict[str, float] = {}
    for sample in _parsed(page, _NAMES):
        for key, (name, labels) in SERIES.items():
            if sample.name == name and labels.items() <= sample.labels.items():
                values[key] = values.get(key, 0.0) + sample.value
    return values


def parse_ticks(page: str) -> dict[int, BucketTicks]:
    """Return the ticks so far that a metrics page tells, by bucket."""
    ticks: dict[int, BucketTicks] = {}
    for sample in _parsed(page, (TICK_COUNT, TICK_SECONDS)):
        bucket = int(sample.labels["bucket"])
        counted = sample.name == TICK_COUNT
        told = BucketTicks(count=int(sample.value)) if counted else BucketTicks(seconds=sample.value)
        ticks[bucket] = ticks.get(bucket, NONE) + told
    return ticks


def _parsed(page: str, names: tuple[str, ...]) -> Iterator[Any]:
    """Yield the page's samples of these names."""
    # Histograms make most of the page; the parser is too slow to be given lines that nobody reads.
    lines = [line for line in page.splitlines() if line.startswith(names)]
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        yield from family.samples


def _fetch(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:
            return str(answer.read().decode())
    except (OSError, ValueError) as error:
        raise TargetError(f"the metrics page {url} cannot be read: {error}") from error


def _tree_memory(pid: int) -> float:
    try:
        process = psutil.Process(pid)
        resident: float = process.memory_info().rss
        for child in process.children(recursive=True):
            resident += child.memory_info().rss
    except psutil.Error as error:
        raise TargetError(f"the process {pid} cannot be read: {error}") from error
    return resident
