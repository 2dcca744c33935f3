"""Print where the engine's resident memory goes, stage by stage, and what a served engine process holds.

The stages run in this process, in the order in which an engine process starts; each line is what is resident after it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

from engine.config import DEFAULT_BACKENDS

MB = 1_000_000


def resident() -> tuple[float, float]:
    """Return this process's resident memory in MB, and how much of it is not mapped from files."""
    fields = {
        name: int(value) * 1024 / MB
        for name, value, *_ in (
            line.replace(":", "").split()
            for line in Path("/proc/self/smaps_rollup").read_text().splitlines()
            if " kB" in line
        )
    }
    return fields["Rss"], fields["Anonymous"]


def stages(name: str, dtype: str) -> Iterator[str]:
    """Start an engine as its process does, and stop after each stage."""
    yield "interpreter"
    import torch

    assert torch
    yield "torch"
    from engine.config import EngineConfig
    from engine.loop.process import load_backend
    from engine.loop.trimming import give_back
    from engine.loop.warmup import calibrate

    yield "engine"
    backend = load_backend(EngineConfig(backend=name, dtype=dtype))
    yield "loaded"
    give_back()
    yield "given back"
    facts = backend.facts
    side = facts.default_height // facts.latent_scale
    buckets = backend.buckets((facts.latent_channels, side, side))
    calibrate(backend, buckets, time.monotonic, decode_batch=4, patience_ticks=2, reference_batch=4)
    yield "calibrated, all buckets"
    give_back()
    yield "given back again"


def served(name: str, dtype: str, threads: int, jobs: int) -> dict[str, int]:
    """Keep so many guided jobs of 20 steps in flight, twice; return resident bytes of server and engine."""
    from loadtests.bench.service import resident_bytes, saturated
    from loadtests.bench.settings import BenchSettings
    from tools.local_server import local_server

    settings = BenchSettings(images_a_round=jobs, concurrency=jobs)
    options = ("--engine-backend", name, "--engine-threads", str(threads), "--engine-dtype", dtype)
    with local_server(*options, "--log-level", "warning") as server:
        for seed in (0, 1000):
            seconds, _ = saturated(server, settings, seed)
            print(f"{jobs} of the jobs of {settings.steps} steps in {seconds:.1f} s", flush=True)
        return resident_bytes(server.pid)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench.memory", description=__doc__)
    parser.add_argument("--backend", default=DEFAULT_BACKENDS["cpu"])
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "int8"), default="auto")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=16, help="in flight at once in the served engine")
    arguments = parser.parse_args()
    print("| stage | resident MB | of it not from files |")
    print("|---|---|---|")
    for stage in stages(arguments.backend, arguments.dtype):
        print("| {} | {:.0f} | {:.0f} |".format(stage, *resident()), flush=True)
    memory = served(arguments.backend, arguments.dtype, arguments.threads, arguments.jobs)
    for process, size in memory.items():
        print(f"| {process} process, after serving | {size / MB:.0f} | |")


if __name__ == "__main__":
    main()
