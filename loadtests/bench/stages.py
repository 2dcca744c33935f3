"""``python -m loadtests.bench.stages``: where an image's time in the engine goes, stage by stage.

The bare engine loop of one thread on OpenVINO, always full at its largest bucket, in this process: all that it does
it does one after the other.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import ParamSpec, TypeVar

import openvino

from engine.config import EngineConfig
from loadtests.bench.limit import BareLoop
from loadtests.bench.settings import BenchSettings

P = ParamSpec("P")
T = TypeVar("T")

INFER = "openvino"
CALLS = {
    "encode_prompts": "prompt",
    "place": "place",
    "predict_noise": "unet",
    "decode_latents": "decoder",
}
"""The stage of each of the backend's calls."""

STAGES: Mapping[tuple[str, ...], str] = {
    ("unet", INFER): "UNet, in OpenVINO",
    ("unet",): "UNet: rows into their batch, inputs and outputs",
    ("decoder", INFER): "VAE decoder, in OpenVINO",
    ("decoder",): "VAE decoder: inputs, pictures to bytes",
    ("prompt", INFER): "text encoder, in OpenVINO",
    ("prompt",): "text encoder: tokens, inputs and outputs",
    ("place", INFER): "keys and values, in OpenVINO",
    ("place",): "keys and values: into their slot",
    (): "loop: scheduler, guidance, samplers, messages",
}


class Stopwatch:
    """Time of stages that nest: each counts what is spent in it and in none that it calls."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._open: tuple[str, ...] = ()
        self._since = clock()
        self.spent: dict[tuple[str, ...], float] = defaultdict(float)
        """Seconds by path of stages, outermost first."""

    def timed(self, stage: str, call: Callable[P, T]) -> Callable[P, T]:
        """Return the call as a stage."""

        def counted(*args: P.args, **kwargs: P.kwargs) -> T:
            outer = self._open
            self._enter((*outer, stage))
            try:
                return call(*args, **kwargs)
            finally:
                self._enter(outer)

        return counted

    def reset(self) -> None:
        """Begin anew, outside of every stage."""
        self.spent.clear()
        self._since = self._clock()

    def stop(self) -> dict[tuple[str, ...], float]:
        """Return the seconds of each stage since the last reset; the empty path is what no stage had."""
        self._enter(self._open)
        return dict(self.spent)

    def _enter(self, path: tuple[str, ...]) -> None:
        now = self._clock()
        self.spent[self._open] += now - self._since
        self._open, self._since = path, now


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench.stages", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=64, help="a round")
    parser.add_argument("--dtype", choices=("auto", "bfloat16", "float32", "int8"), default="auto")
    parser.add_argument("--buckets", type=int, nargs="+", default=[2, 8, 16])
    arguments = parser.parse_args()
    in_flight = max(arguments.buckets) // 2
    if arguments.images % in_flight:
        parser.error(
            f"{arguments.images} images do not fill a bucket of {max(arguments.buckets)} rows to the end"
        )
    config = EngineConfig(
        backend="openvino", dtype=arguments.dtype, threads=1, buckets=tuple(arguments.buckets)
    )
    bare = BareLoop(BenchSettings(), config)
    stopwatch = Stopwatch()
    for call, stage in CALLS.items():
        setattr(bare.backend, call, stopwatch.timed(stage, getattr(bare.backend, call)))
    infer = openvino.InferRequest.infer
    openvino.InferRequest.infer = stopwatch.timed(INFER, infer)
    bare.run(2 * in_flight, in_flight)
    rounds = []
    for _ in range(arguments.rounds):
        stopwatch.reset()
        bare.run(arguments.images, in_flight)
        rounds.append({stage: seconds / arguments.images for stage, seconds in stopwatch.stop().items()})
    print("\n".join(table(rounds)))


def table(rounds: Sequence[Mapping[tuple[str, ...], float]]) -> list[str]:
    """Return the stages in Markdown, from rounds of seconds an image. Raises ``KeyError`` for one without a name."""
    whole = median(sum(each.values()) for each in rounds)
    lines = ["| stage | ms an image (least to most) | of the whole |", "|---|---|---|"]
    unknown = {stage for each in rounds for stage in each} - STAGES.keys()
    if unknown:
        raise KeyError(f"stages without a name: {sorted(unknown)}")
    if not any(each.get(("unet", INFER)) for each in rounds):
        raise ValueError("OpenVINO was not seen: what was timed is not how it is called")
    for stage, name in STAGES.items():
        times = sorted(1000 * each.get(stage, 0.0) for each in rounds)
        share = median(times) / (1000 * whole)
        lines.append(f"| {name} | {median(times):.2f} ({times[0]:.2f} to {times[-1]:.2f}) | {share:.1%} |")
    return [*lines, f"| whole | {1000 * whole:.2f} | |"]


if __name__ == "__main__":
    main()
