"""Run every side in turns and print one table."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import NamedTuple

from engine.__main__ import SPIN_COUNT
from engine.config import DEFAULT_BACKENDS
from loadtests.bench.service import resident_bytes, saturated, unloaded
from loadtests.bench.settings import BenchSettings
from loadtests.bench.worker import Worker
from loadtests.provenance import provenance
from loadtests.ratios import ratios, show
from tools.local_server import LocalServer, local_server

DTYPES = ("auto", "float32", "bfloat16")
OUT = Path(".cache/bench.json")


@dataclass(slots=True, kw_only=True)
class Measured:
    """Seconds and rates, one entry a round; ratios are taken within a round."""

    peer_latency: list[float] = field(default_factory=list)
    service_latency: list[float] = field(default_factory=list)
    peer_rate: list[float] = field(default_factory=list)
    service_rate: list[float] = field(default_factory=list)
    limit_rate: list[float] = field(default_factory=list)
    mean_batch_rows: list[float] = field(default_factory=list)
    also_latency: dict[str, list[float]] = field(default_factory=dict)
    also_rate: dict[str, list[float]] = field(default_factory=dict)


class Side(NamedTuple):
    """A backend and the type that it computes in."""

    backend: str
    dtype: str

    def __str__(self) -> str:
        return f"{self.backend} in {self.dtype}"


def _side(text: str) -> Side:
    backend, _, dtype = text.partition(":")
    return Side(backend, dtype or "float32")


def _bare_loop(side: Side, threads: Sequence[str]) -> Worker:
    # The bare loop waits for its threads as the engine process does.
    options = ("--backend", side.backend, "--dtype", side.dtype)
    return Worker("loadtests.bench.limit", *threads, *options, GOMP_SPINCOUNT=SPIN_COUNT)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=BenchSettings().rounds)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--backend", default=DEFAULT_BACKENDS["cpu"], help="of the service and its bare loop")
    parser.add_argument(
        "--dtype", choices=(*DTYPES, "int8"), default="auto", help="of the service and its bare loop"
    )
    parser.add_argument("--peer-dtype", choices=DTYPES[1:], default="float32", help="of diffusers")
    parser.add_argument(
        "--also",
        type=_side,
        nargs="*",
        default=[],
        metavar="BACKEND:DTYPE",
        help="bare loops to measure in the same rounds, such as openvino:float32 torch:float32",
    )
    parser.add_argument("--out", type=Path, default=OUT, help="where the figures go as JSON")
    arguments = parser.parse_args()
    settings = BenchSettings(rounds=arguments.rounds, threads=arguments.threads)
    threads = ("--threads", str(settings.threads))
    side = Side(arguments.backend, arguments.dtype)
    engine = [f"--engine-{flag}={value}" for flag, value in zip(side._fields, side, strict=True)]
    engine += ["--engine-threads", str(settings.threads), "--log-level", "warning"]
    # One after the other, each when the last is ready: loops and engine calibrate themselves as they start.
    with ExitStack() as stack:
        peer = stack.enter_context(Worker("loadtests.bench.peer", *threads, "--dtype", arguments.peer_dtype))
        limit, *others = [stack.enter_context(_bare_loop(each, threads)) for each in (side, *arguments.also)]
        engine_facts = limit.ask()
        server = stack.enter_context(local_server(*engine))
        also = dict(zip(arguments.also, others, strict=True))
        measured = _rounds(settings, peer, limit, server, also)
        memory = resident_bytes(server.pid)
    rows = {int(bucket): seconds / int(bucket) for bucket, seconds in engine_facts["tick_seconds"].items()}
    what = f"{side}; diffusers in {arguments.peer_dtype}"
    _print(settings, what, measured, rows, engine_facts["best_bucket"], memory, server)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    figures = {"measured": asdict(measured), "row_seconds": rows, "memory": memory}
    arguments.out.write_text(json.dumps({"provenance": provenance(), **figures}, indent=1))


def _rounds(
    settings: BenchSettings,
    peer: Worker,
    limit: Worker,
    server: LocalServer,
    also: dict[Side, Worker],
) -> Measured:
    peer.ask(images=1)
    for loop in (limit, *also.values()):
        loop.ask(images=loop.ask()["fill"])
    unloaded(server, settings, seed=0)
    measured = Measured()
    for number in range(settings.rounds):
        seed = 1000 * (number + 1)
        measured.peer_latency.append(median(peer.ask(images=settings.latency_requests)["seconds"]))
        measured.service_latency.append(median(unloaded(server, settings, seed)))
        seconds = peer.ask(images=settings.peer_images)["seconds"]
        measured.peer_rate.append(settings.peer_images / sum(seconds))
        taken, rows = saturated(server, settings, seed + 500)
        measured.service_rate.append(settings.images_a_round / taken)
        measured.mean_batch_rows.append(rows)
        measured.limit_rate.append(limit.ask(steady_images=settings.images_a_round)["rate"])
        for side, loop in also.items():
            latencies = [loop.ask(images=1)["seconds"] for _ in range(settings.latency_requests)]
            measured.also_latency.setdefault(str(side), []).append(median(latencies))
            rate = loop.ask(steady_images=settings.images_a_round)["rate"]
            measured.also_rate.setdefault(str(side), []).append(rate)
        print(f"round {number + 1} of {settings.rounds}", flush=True)
    return measured


def _print(
    settings: BenchSettings,
    what: str,
    measured: Measured,
    rows: dict[int, float],
    best_bucket: int,
    memory: dict[str, int],
    server: LocalServer,
) -> None:
    print(
        f"\n{platform.machine()}, {settings.threads} threads, {what}; {settings.sampler}, "
        f"{settings.steps} steps, guidance {settings.guidance_scale:g}; medians of {settings.rounds} rounds\n"
    )
    print("| what | Limner | against | ratio (least to most) | target |")
    print("|---|---|---|---|---|")
    print(
        f"| unloaded latency | {median(measured.service_latency):.3f} s "
        f"| diffusers' pipeline {median(measured.peer_latency):.3f} s "
        f"| {show(ratios(measured.service_latency, measured.peer_latency))} | at most 0.6 |"
    )
    print(
        f"| saturated throughput | {median(measured.service_rate):.2f} images/s "
        f"| diffusers request by request {median(measured.peer_rate):.2f} images/s "
        f"| {show(ratios(measured.service_rate, measured.peer_rate))} | at least 2.5 |"
    )
    print(
        f"| saturated throughput | {median(measured.service_rate):.2f} images/s "
        f"| bare engine loop, bucket {best_bucket}: {median(measured.limit_rate):.2f} images/s "
        f"| {show(ratios(measured.service_rate, measured.limit_rate))} | at least 0.95 |"
    )
    for name, rates in measured.also_rate.items():
        latencies = measured.also_latency[name]
        print(
            f"| latency of one image in the bare loop, {name} | {median(latencies):.3f} s "
            f"| diffusers' pipeline {median(measured.peer_latency):.3f} s "
            f"| {show(ratios(latencies, measured.peer_latency))} | |"
        )
        print(
            f"| throughput of the bare loop, {name} | {median(rates):.2f} images/s "
            f"| diffusers request by request {median(measured.peer_rate):.2f} images/s "
            f"| {show(ratios(rates, measured.peer_rate))} | |"
        )
    print("\n| bucket (rows) | " + " | ".join(str(bucket) for bucket in rows) + " |")
    print("|---|" + "---|" * len(rows))
    print("| ms a row | " + " | ".join(f"{seconds * 1000:.1f}" for seconds in rows.values()) + " |")
    print(
        f"\nmean useful rows a tick at saturation {median(measured.mean_batch_rows):.1f}; "
        f"memory: server {memory['server'] / 2**20:.0f} MiB, engine {memory['engine'] / 2**20:.0f} MiB; "
        f"start: ports bound after {server.bound_seconds:.2f} s, ready after {server.ready_seconds:.2f} s"
    )


if __name__ == "__main__":
    main()
