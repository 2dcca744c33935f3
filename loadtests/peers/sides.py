"""The sides of the comparison: how each is started, and how it is asked for a portrait."""

from __future__ import annotations

import contextlib
import http.client
import sysconfig
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from engine.embedded import model_directory
from loadtests.peers.ask import Ask
from loadtests.peers.dtypes import DTYPES, FLOATS
from loadtests.peers.environments import environment
from loadtests.peers.errors import PeerNotStartedError, PeerRefusedError, tail
from loadtests.peers.measure import Opener
from loadtests.peers.process import free_port, running
from loadtests.peers.target import PeerTarget
from loadtests.runner.gallery import Gallery
from loadtests.runner.limner import LimnerTarget
from tools.local_server import local_server

START_SECONDS = 600.0
"""What torch compiles needs two and a half to four minutes of an idle machine."""
POLL_SECONDS = 0.2
HEALTH_SECONDS = 10.0
ROOT = Path(__file__).resolve().parents[2]
LIMNER = {
    "limner": "--engine-threads {threads}",
    "limner-lanes": "--engine-threads {threads} --engine-buckets 2,8,32 --engine-lanes {threads}",
    "limner-engines": "--engine-threads 1 --engine-buckets 2,8,16 --engine-devices {devices}",
}
"""Limner's own sides and their flags: as it comes, and with a lane or an engine for each thread (docs/backends.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A peer's module in `loadtests.peers.serving`, the environment that it runs in, and its way of being asked."""

    module: str
    requirements: str
    arguments: tuple[str, ...] = ()
    types: tuple[str, ...] = FLOATS
    workers: bool = False
    """Whether it has a worker of one thread for each thread, with that part of a batch, in place of one of all."""
    path: str = "predict"
    health: str | None = None
    """Answers 200 when all workers are ready; where there is none, an answered request says so."""

    def worker_count(self, threads: int) -> int:
        """Return how many workers share so many threads."""
        return threads if self.workers else 1

    kserve: bool = False
    environment: dict[str, str] = field(default_factory=dict)


_LITSERVE = Peer(module="litserve_server", requirements="litserve", health="health")
_COMPILED = replace(_LITSERVE, requirements="litserve-compiled", arguments=("--compile",), types=DTYPES)
PEERS = {
    "diffusers": Peer(module="plain", requirements="diffusers"),
    "litserve": _LITSERVE,
    "litserve-workers": replace(_LITSERVE, workers=True),
    "litserve-compiled": _COMPILED,
    "litserve-compiled-workers": replace(_COMPILED, workers=True),
    "ray": Peer(
        module="ray_server",
        requirements="ray",
        path="",
        environment={"RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_LOG_TO_STDERR": "0"},
    ),
    "pytriton": Peer(
        module="pytriton_server",
        requirements="pytriton",
        path="v2/models/portrait/infer",
        kserve=True,
        # Triton's Python stub takes the first libpython of its minor version that the loader finds; it must be ours.
        environment={"LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR"))},
    ),
    "openvino": Peer(module="openvino_server", requirements="openvino", types=DTYPES),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A server and the type that it computes in; None leaves the type to it."""

    name: str
    dtype: str | None

    def __str__(self) -> str:
        return self.name if self.dtype is None else f"{self.name}:{self.dtype}"


def parse_side(text: str) -> Side:
    """Return the side that ``NAME`` or ``NAME:DTYPE`` stands for. Raises ``ValueError`` for unknown ones."""
    name, _, dtype = text.partition(":")
    if name not in LIMNER and name not in PEERS:
        raise ValueError(f"side {name!r} is none of {', '.join([*LIMNER, *PEERS])}")
    types = PEERS[name].types if name in PEERS else DTYPES
    if dtype and dtype not in types:
        raise ValueError(f"type {dtype!r} of {name} is none of {', '.join(types)}")
    return Side(name=name, dtype=dtype or None)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartSettings:
    """What is the same for every side; `people` is the folder of `write_people`."""

    threads: int
    max_batch: int
    batch_seconds: float
    cache: Path
    people: Path
    pip_arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A running side: its process, its log, and how to open it as a target in an event loop."""

    pid: int
    seconds: float
    open: Opener


@contextlib.contextmanager
def start_peer(side: Side, settings: StartSettings, first: Ask) -> Iterator[Started]:
    """Start a peer in its own environment and wait until it has answered its first ask.

    Raises ``PeerNotInstalledError`` and ``PeerNotStartedError`` with the end of its log.
    """
    peer = PEERS[side.name]
    python = environment(peer.requirements, settings.cache, settings.pip_arguments)
    port = free_port()
    threads = settings.threads // peer.worker_count(settings.threads)
    command = [str(python), *_arguments(side, settings, port)]
    log = settings.cache / f"{str(side).replace(':', '-')}.log"
    variables = {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TORCHINDUCTOR_CACHE_DIR": str(settings.cache / "inductor"),
        **peer.environment,
    }
    target = PeerTarget(str(side), f"http://127.0.0.1:{port}/{peer.path}", kserve=peer.kserve)
    start = time.perf_counter()
    with running(command, log, variables) as process:
        said = ""
        while True:
            if process.poll() is not None:
                raise PeerNotStartedError(str(side), f"ended with status {process.returncode}", tail(log))
            if time.perf_counter() - start > START_SECONDS:
                raise PeerNotStartedError(
                    str(side), f"gave no picture within {START_SECONDS:.0f} s{said}", tail(log)
                )
            try:
                if peer.health is not None:
                    _check_health(str(side), f"http://127.0.0.1:{port}/{peer.health}")
                target.ask(first)
                break
            except PeerRefusedError as error:  # a server that is up before its model
                said = f"; {error.reason}"
            time.sleep(POLL_SECONDS)

        yield Started(pid=process.pid, seconds=time.perf_counter() - start, open=lambda: target)


def _arguments(side: Side, settings: StartSettings, port: int) -> list[str]:
    """Return what a peer's Python is told: its module and the options of `loadtests.peers.serving.settings`."""
    peer = PEERS[side.name]
    workers = peer.worker_count(settings.threads)
    return [
        "-m", f"loadtests.peers.serving.{peer.module}",
        "--model", str(model_directory()), "--references", str(settings.people), "--port", str(port),
        "--threads", str(settings.threads // workers), "--max-batch", str(max(1, settings.max_batch // workers)),
        "--batch-seconds", str(settings.batch_seconds),
        *(["--workers", str(workers)] if peer.workers else []),
        *peer.arguments,
        *(["--dtype", side.dtype] if side.dtype is not None else []),
    ]  # fmt: skip


def _check_health(name: str, url: str) -> None:
    """Raise ``PeerRefusedError`` unless a server says that it is ready."""
    try:
        with urllib.request.urlopen(url, timeout=HEALTH_SECONDS):
            pass  # anything but success is raised
    except (OSError, http.client.HTTPException) as error:
        raise PeerRefusedError(name, f"is not ready: {error}") from error


@contextlib.contextmanager
def start_limner(side: Side, settings: StartSettings, gallery: Gallery) -> Iterator[Started]:
    """Start Limner's server with its engine. Raises ``PeerNotStartedError`` with the end of its log."""
    devices = ",".join(["cpu"] * settings.threads)
    options = LIMNER[side.name].format(threads=settings.threads, devices=devices).split()
    # Paused for longer than an engine may say nothing, it would be replaced by a new one when it goes on.
    options += ["--log-level", "warning", "--engine-stall-timeout-seconds", "0"]
    if side.dtype is not None:
        options += ["--engine-dtype", side.dtype]
    log = settings.cache / f"{str(side).replace(':', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(local_server(*options, log=log))
        except RuntimeError as error:
            raise PeerNotStartedError(str(side), "did not start", str(error)) from error

        # One tenant in all rounds: what the side has seen it may remember, as its peers do.
        yield Started(
            pid=server.pid,
            seconds=server.ready_seconds,
            open=lambda: LimnerTarget(server.target, gallery, tenant="peers"),
        )


def start(
    side: Side, settings: StartSettings, gallery: Gallery, first: Ask
) -> contextlib.AbstractContextManager[Started]:
    """Start any side."""
    if side.name in LIMNER:
        return start_limner(side, settings, gallery)
    return start_peer(side, settings, first)
