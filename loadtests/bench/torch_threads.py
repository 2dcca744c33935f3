"""``python -m loadtests.bench.torch_threads``: the bare engine loop on OpenVINO, one thread for torch against all.

Two loops in processes of their own take turns; torch computes the few small operators between two calls of the UNet.
"""

from __future__ import annotations

import argparse
import os
from statistics import median

from engine.__main__ import SPIN_COUNT
from loadtests.bench.worker import Worker
from loadtests.ratios import ratios, show

SIDES = ("one", "all")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench.torch_threads", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--images", type=int, default=32, help="a round")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--dtype", choices=("auto", "bfloat16", "float32", "int8"), default="auto")
    parser.add_argument("--lanes", type=int, default=1)
    parser.add_argument("--buckets", nargs="+", default=["2", "8"])
    arguments = parser.parse_args()
    options = (
        "--threads", str(arguments.threads), "--dtype", arguments.dtype, "--lanes", str(arguments.lanes),
        "--buckets", *arguments.buckets,
    )  # fmt: skip
    every = ("--torch-threads", str(arguments.threads))
    rates: dict[str, list[float]] = {side: [] for side in SIDES}
    with (
        Worker("loadtests.bench.limit", *options, GOMP_SPINCOUNT=SPIN_COUNT) as one,
        Worker("loadtests.bench.limit", *options, *every, GOMP_SPINCOUNT=SPIN_COUNT) as all_threads,
    ):
        loops = dict(zip(SIDES, (one, all_threads), strict=True))
        for loop in loops.values():
            loop.ask(images=loop.ask()["best_bucket"])
        for number in range(arguments.rounds):
            for side in SIDES if number % 2 else SIDES[::-1]:
                rates[side].append(loops[side].ask(steady_images=arguments.images)["rate"])
    print("| torch's threads | images/s | time over all threads' (least to most) |")
    print("|---|---|---|")
    for side, reached in rates.items():
        print(f"| {side} | {median(reached):.2f} | {show(ratios(rates['all'], reached))} |")


if __name__ == "__main__":
    main()
