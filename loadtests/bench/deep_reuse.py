"""Show what deep features that are reused between steps would save, and what the pictures lose, beside fewer steps.

``python -m loadtests.bench.deep_reuse``: pairs of a person and a scene from the quality report, drawn in each way in
turns by the engine loop on OpenVINO, as many together as its bucket holds; the reader names what the pictures show.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from engine.backends.compiled.backend import CompiledBackend, CompiledSettings
from engine.backends.compiled.openvino_runtime import OpenVINOSettings, best_dtype
from engine.config import EngineConfig, default_cache_dir
from engine.embedded import model_directory
from engine.embedded.quality.generate import Generator
from engine.embedded.quality.pairs import choose_pairs
from engine.embedded.quality.reader import load_reader, reader_path
from engine.embedded.quality.settings import MAIN, Setting
from engine.embedded.recipe.stages import test_set
from engine.export.obtain import obtain_export
from engine.export.settings import ExportSettings
from loadtests.bench.pictures import Drawn, Seen, in_turns, meet, orders_of, sheet
from loadtests.bench.reusing import Reuse, ReusingRuntime
from loadtests.ratios import ratios, show

SHEET_PAIRS = 8
EVERY = {2: "2nd", 3: "3rd", 4: "4th", 5: "5th"}
BELOW = {2: "below the outermost level", 1: "below the last resnet"}
"""What is computed in some steps alone, by how many resnets of the way up are computed in all; of the model in the box,
whose levels have two resnets there.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way of drawing: a point of a curve of the plot, and a line of the table."""

    curve: str
    name: str
    setting: Setting = MAIN
    reuse: Reuse = field(default_factory=Reuse)


WHOLE = Way(curve="", name=f"all layers in {MAIN.steps} steps")
"""What the others are compared with, and where each curve begins."""

WAYS = (
    WHOLE,
    *(
        Way(
            curve=f"layers {below} not in every step",
            name=f"layers {below} in every {nth} of {MAIN.steps} steps",
            reuse=Reuse(every=every, shallow=shallow),
        )
        for shallow, below in BELOW.items()
        for every, nth in EVERY.items()
    ),
    *(
        Way(curve="fewer steps", name=f"all layers in {steps} steps", setting=replace(MAIN, steps=steps))
        for steps in (15, 12, 10, 8, 6, 5)
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench.deep_reuse", description=__doc__)
    parser.add_argument("--pairs", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bucket", type=int, default=8, help="in rows")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=("auto", "f32", "bf16"), default="auto")
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="drawings")
    parser.add_argument("--sheet", type=Path, default=Path(".cache/deep_reuse.png"))
    parser.add_argument("--plot", type=Path, default=Path(".cache/deep_reuse.svg"))
    arguments = parser.parse_args()
    together = arguments.bucket // 2
    if arguments.bucket % 2 or arguments.pairs % (arguments.rounds * together):
        parser.error(
            f"{arguments.pairs} pairs in {arguments.rounds} rounds do not come in batches of {together}, "
            "which fill an even --bucket"
        )
    pairs = choose_pairs(test_set(arguments), arguments.pairs)
    runtime = ReusingRuntime(_settings(arguments))
    export = obtain_export(model_directory(), default_cache_dir(), ExportSettings())
    buckets = (arguments.bucket,)
    backend = CompiledBackend(export, runtime, CompiledSettings(buckets=buckets))
    generator = Generator(backend, EngineConfig(backend="openvino", buckets=buckets), clock=lambda: 0.0)
    drawn = {way: Drawn() for way in WAYS}
    for way in WAYS:
        runtime.reuse = way.reuse  # its graphs are compiled here
        meet(generator, orders_of(pairs, np.arange(together), setting=way.setting))
    with tqdm(total=len(WAYS) * len(pairs), desc="pictures") as bar:
        for turn, numbers in enumerate(np.array_split(np.arange(len(pairs)), arguments.rounds)):
            runtime.reuse = WHOLE.reuse
            meet(generator, orders_of(pairs, numbers))
            for way in in_turns(WAYS, turn):
                runtime.reuse = way.reuse
                orders = orders_of(pairs, numbers, setting=way.setting)
                drawn[way].draw(generator, orders, done=bar.update, together=together)
    exact = drawn[WHOLE]
    reader = load_reader(reader_path())
    seen = {
        way: Seen.of(found.all_pictures, exact.all_pictures, pairs, reader) for way, found in drawn.items()
    }
    times = {way: ratios(found.seconds, exact.seconds) for way, found in drawn.items()}
    print("| computed | time over all computed (least to most) | who | scene | mean difference, of 255 |")
    print("|---|---|---|---|---|")
    for way in WAYS:
        print(f"| {way.name} | {show(times[way])} | {seen[way].cells} |")
    for path in (arguments.sheet, arguments.plot):
        path.parent.mkdir(parents=True, exist_ok=True)
    rows = [found.all_pictures[:SHEET_PAIRS] for found in drawn.values()]
    sheet(rows).save(arguments.sheet, optimize=True)
    _plot({way: (times[way][0], seen[way].difference) for way in WAYS}, arguments.plot)


def _settings(arguments: argparse.Namespace) -> OpenVINOSettings:
    precision = arguments.precision
    if precision == "auto":
        precision = "bf16" if best_dtype() == "bfloat16" else "f32"
    return OpenVINOSettings(
        precision=precision, threads=arguments.threads, cache=default_cache_dir() / "openvino"
    )


def _plot(points: dict[Way, tuple[float, float]], path: Path) -> None:
    """Draw the mean difference over the time, a curve for each kind; the same points give the same bytes."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    style: dict[Any, Any] = {"svg.hashsalt": "limner", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3}
    with pyplot.rc_context(style):
        figure, axes = pyplot.subplots(figsize=(5.4, 3.4), layout="constrained")
        for curve in dict.fromkeys(way.curve for way in WAYS if way is not WHOLE):
            own = sorted(point for way, point in points.items() if way is WHOLE or way.curve == curve)
            axes.plot(*zip(*own, strict=True), marker="o", markersize=4, label=curve)
        axes.set_xlabel("time of a picture over that with every layer in every step")
        axes.set_ylabel("mean difference from it, of 255")
        axes.set_xlim(0, 1.05)
        axes.set_ylim(bottom=0)
        figure.legend(frameon=False, loc="outside upper left")
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
        pyplot.close(figure)


if __name__ == "__main__":
    main()
