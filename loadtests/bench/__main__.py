"""Run every side in turns and print one table."""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from engine.__main__ import SPIN_COUNT
from loadtests.bench.service import resident_bytes, saturated, unloaded
from loadtests.bench.settings import BenchSettings
from loadtests.bench.worker import Worker
from tools.local_server import LocalServer, local_server

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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=BenchSettings().rounds)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of every side")
    parser.add_argument("--out", type=Path, default=OUT, help="where the figures go as JSON")
    arguments = parser.parse_args()
    settings = BenchSettings(rounds=arguments.rounds, threads=arguments.threads)
    common = ("--threads", str(settings.threads), "--dtype", arguments.dtype)
    engine = (
        "--engine-threads",
        str(settings.threads),
        "--engine-dtype",
        arguments.dtype,
        "--log-level",
        "warning",
    )
    # One after the other: the loop and the engine calibrate themselves when they start.
    with Worker("loadtests.bench.peer", *common) as peer:
        peer.ask(images=1)
        # The bare loop waits for its threads as the engine process does.
        with Worker("loadtests.bench.limit", *common, GOMP_SPINCOUNT=SPIN_COUNT) as limit:
            engine_facts = limit.ask()
            with local_server(*engine) as server:
                measured = _rounds(settings, peer, limit, server)
                memory = resident_bytes(server.pid)
    rows = {int(bucket): seconds / int(bucket) for bucket, seconds in engine_facts["tick_seconds"].items()}
    _print(settings, arguments.dtype, measured, rows, engine_facts["best_bucket"], memory, server)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(
        json.dumps({"measured": asdict(measured), "row_seconds": rows, "memory": memory}, indent=1)
    )


def _rounds(settings: BenchSettings, peer: Worker, limit: Worker, server: LocalServer) -> Measured:
    peer.ask(images=1)
    limit.ask(images=_fill(limit))
    unloaded(server, settings, seed=0)
    measured = Measured()
    for number in range(settings.rounds):
        seed = 1000 * (number + 1)
        measured.peer_latency.append(median(peer.ask(images=settings.latency_requests)["seconds"]))
        measured.service_latency.append(median(unloaded(server, settings, seed)))
        # A closed loop has a ramp at both ends; so has the bare loop.
        seconds = peer.ask(images=settings.peer_images)["seconds"]
        measured.peer_rate.append(settings.peer_images / sum(seconds))
        taken, rows = saturated(server, settings, seed + 500)
        measured.service_rate.append(settings.images_a_round / taken)
        measured.mean_batch_rows.append(rows)
        measured.limit_rate.append(
            settings.images_a_round / limit.ask(images=settings.images_a_round)["seconds"]
        )
        print(f"round {number + 1} of {settings.rounds}", flush=True)
    return measured


def _fill(limit: Worker) -> int:
    """Return how many guided images fill the bare loop's best bucket."""
    return max(1, int(limit.ask()["best_bucket"]) // 2)


def _ratio(ours: list[float], theirs: list[float]) -> str:
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    return f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def _print(
    settings: BenchSettings,
    dtype: str,
    measured: Measured,
    rows: dict[int, float],
    best_bucket: int,
    memory: dict[str, int],
    server: LocalServer,
) -> None:
    print(
        f"\n{platform.machine()}, {settings.threads} threads, {dtype}, torch backend; {settings.sampler}, "
        f"{settings.steps} steps, guidance {settings.guidance_scale:g}; medians of {settings.rounds} rounds\n"
    )
    print("| what | Limner | against | ratio (least to most) | target |")
    print("|---|---|---|---|---|")
    print(
        f"| unloaded latency | {median(measured.service_latency):.3f} s "
        f"| diffusers' pipeline {median(measured.peer_latency):.3f} s "
        f"| {_ratio(measured.service_latency, measured.peer_latency)} | at most 1.0 |"
    )
    print(
        f"| saturated throughput | {median(measured.service_rate):.2f} images/s "
        f"| diffusers request by request {median(measured.peer_rate):.2f} images/s "
        f"| {_ratio(measured.service_rate, measured.peer_rate)} | at least 1.4 |"
    )
    print(
        f"| saturated throughput | {median(measured.service_rate):.2f} images/s "
        f"| bare engine loop, bucket {best_bucket}: {median(measured.limit_rate):.2f} images/s "
        f"| {_ratio(measured.service_rate, measured.limit_rate)} | at least 0.95 |"
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
