"""Place the service between its bare engine loop and the machine's arithmetic ceiling, in turns within one run."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil
import torch

from engine.__main__ import SPIN_COUNT
from engine.backends.compiled.openvino_runtime import best_dtype
from engine.config import DEFAULT_BACKENDS
from loadtests.bench.arithmetic import Flops, image_flops, measure_rates
from loadtests.bench.service import saturated, unloaded
from loadtests.bench.settings import BenchSettings
from loadtests.bench.worker import Worker
from loadtests.provenance import provenance
from loadtests.ratios import ratios, show
from tools.local_server import local_server


@dataclass(slots=True, kw_only=True)
class Placed:
    """Images a second, one entry a round."""

    ceiling: list[float] = field(default_factory=list)
    loop: list[float] = field(default_factory=list)
    service: list[float] = field(default_factory=list)
    rows: list[float] = field(default_factory=list)
    cpu: list[dict[str, float]] = field(default_factory=list)
    """CPU seconds of each process, a round of the service with what is not counted at both ends."""

    def lines(self) -> list[str]:
        """Return the table in Markdown; shares are medians, least and most of the rounds."""
        in_loop = show(ratios(self.service, self.loop))
        return [
            "| what | images/s | of the ceiling | of the bare loop |",
            "|---|---|---|---|",
            f"| arithmetic ceiling | {median(self.ceiling):.2f} | | |",
            f"| bare engine loop | {median(self.loop):.2f} | {show(ratios(self.loop, self.ceiling))} | |",
            f"| service | {median(self.service):.2f} | {show(ratios(self.service, self.ceiling))} | {in_loop} |",
        ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench.ceiling", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--backend", default=DEFAULT_BACKENDS["cpu"])
    parser.add_argument("--dtype", choices=("auto", "bfloat16", "float32"), default="auto")
    parser.add_argument("--lanes", type=int, default=1)
    parser.add_argument("--buckets", type=int, nargs="+", help="in rows, by default all of the backend")
    parser.add_argument("--images", type=int, default=BenchSettings().images_a_round, help="a round")
    parser.add_argument("--rate-seconds", type=float, default=2.0, help="of each measured kernel")
    parser.add_argument("--out", type=Path, default=Path(".cache/ceiling.json"))
    arguments = parser.parse_args()
    if arguments.dtype == "auto":
        arguments.dtype = best_dtype()  # the ceiling is that of the type that the service computes in
    settings = BenchSettings(
        rounds=arguments.rounds, threads=arguments.threads, images_a_round=arguments.images
    )
    torch.set_num_threads(settings.threads)
    flops = image_flops(settings.model, settings.steps)
    placed = _run(settings, flops, arguments)
    print(
        f"\n{flops.convolution / 1e9:.2f} GFLOP of convolutions and {flops.matrix / 1e9:.2f} of matrix products "
        f"an image of {settings.steps} steps; {settings.threads} threads, {arguments.dtype}\n"
    )
    print("\n".join(placed.lines()))
    print(f"\nmean useful rows a tick {median(placed.rows):.1f}")
    spent = {
        name: median(each[name] for each in placed.cpu) / settings.window.asked for name in placed.cpu[0]
    }
    print("CPU an image: " + ", ".join(f"{name} {1000 * seconds:.1f} ms" for name, seconds in spent.items()))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    figures = {name: getattr(placed, name) for name in ("ceiling", "loop", "service", "rows", "cpu")}
    figures["provenance"] = provenance()
    figures["gflop"] = [flops.convolution / 1e9, flops.matrix / 1e9]
    arguments.out.write_text(json.dumps(figures, indent=1))


def cpu_seconds(pid: int) -> dict[str, float]:
    """Return the CPU time so far of the server process `pid`, its engine and this client."""
    server = psutil.Process(pid)
    processes = {"server": [server], "engine": server.children(recursive=True), "client": [psutil.Process()]}
    times = {name: [each.cpu_times() for each in those] for name, those in processes.items()}
    return {name: sum(each.user + each.system for each in those) for name, those in times.items()}


def engine_options(arguments: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Return the options of the bare loop and those of the server that give both the same engine."""
    loop, server = [], []
    for name in ("threads", "backend", "dtype", "lanes"):
        loop += [f"--{name}", str(getattr(arguments, name))]
        server += [f"--engine-{name}", str(getattr(arguments, name))]
    if arguments.buckets:
        loop += ["--buckets", *map(str, arguments.buckets)]
        server += ["--engine-buckets", ",".join(map(str, arguments.buckets))]
    return loop, server


def _run(settings: BenchSettings, flops: Flops, arguments: argparse.Namespace) -> Placed:
    options, engine = engine_options(arguments)
    placed = Placed()
    with (
        Worker("loadtests.bench.limit", *options, GOMP_SPINCOUNT=SPIN_COUNT) as loop,
        local_server(*engine, "--log-level", "warning") as server,
    ):
        loop.ask(images=loop.ask()["fill"])
        unloaded(server, settings, seed=0)
        for number in range(settings.rounds):
            rates = measure_rates(arguments.dtype, seconds=arguments.rate_seconds)
            placed.ceiling.append(1 / flops.seconds(rates))
            images = settings.images_a_round
            placed.loop.append(loop.ask(steady_images=images)["rate"])
            before = cpu_seconds(server.pid)
            seconds, rows = saturated(server, settings, 1000 * (number + 1))
            placed.cpu.append({name: spent - before[name] for name, spent in cpu_seconds(server.pid).items()})
            placed.service.append(images / seconds)
            placed.rows.append(rows)
            print(
                f"round {number + 1}: convolutions {rates.convolution / 1e9:.0f} GFLOP/s, "
                f"matrix products {rates.matrix / 1e9:.0f} GFLOP/s",
                flush=True,
            )
    return placed


if __name__ == "__main__":
    main()
