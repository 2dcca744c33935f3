"""Draw the same pictures in float32 and in bfloat16, and show and measure how far they are apart.

``python -m loadtests.bench.precision --sheet docs/images/bf16.png``: OpenVINO, the shipped model, each request once in
either type, with the same seeds; times are of whole pictures, taken in turns.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from engine.config import EngineConfig
from engine.embedded import reference_portraits
from loadtests.bench.limit import BareLoop
from loadtests.bench.settings import BenchSettings
from loadtests.ratios import ratios, show

PROMPTS = (
    "a portrait, blue background, wearing a red shirt, smiling, soft light",
    "a portrait, green background, wearing a hat, neutral, soft light",
    "a portrait, white background, wearing a black jacket, smiling, side light",
)
DTYPES = ("float32", "bfloat16")
MARGIN = 18

Picture = NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench.precision", description=__doc__)
    parser.add_argument("--pictures", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sheet", type=Path, default=Path(".cache/bf16.png"))
    arguments = parser.parse_args()
    loops = {
        dtype: BareLoop(BenchSettings(), EngineConfig(dtype=dtype, threads=arguments.threads))
        for dtype in DTYPES
    }
    references = sorted(reference_portraits().values())
    pairs: list[tuple[Picture, Picture]] = []
    seconds: dict[str, list[float]] = {dtype: [] for dtype in DTYPES}
    for number in range(arguments.pictures):
        drawn: dict[str, Picture] = {}
        for dtype, loop in loops.items():
            reference = references[number % len(references)]
            began = time.perf_counter()
            drawn[dtype] = loop.draw(PROMPTS[number % len(PROMPTS)], reference, seed=number)
            seconds[dtype].append(time.perf_counter() - began)
        pairs.append((drawn["float32"], drawn["bfloat16"]))
    _print(pairs, seconds)
    arguments.sheet.parent.mkdir(parents=True, exist_ok=True)
    _sheet(pairs).save(arguments.sheet, optimize=True)


def _print(pairs: Sequence[tuple[Picture, Picture]], seconds: dict[str, list[float]]) -> None:
    apart = [np.abs(exact.astype(int) - reduced) for exact, reduced in pairs]
    print("| picture | mean difference, of 255 | 99th percentile | largest |")
    print("|---|---|---|---|")
    for number, levels in enumerate(apart):
        print(f"| {number} | {levels.mean():.2f} | {np.percentile(levels, 99):.0f} | {levels.max()} |")
    everything = np.concatenate([levels.ravel() for levels in apart])
    print(f"| all | {everything.mean():.2f} | {np.percentile(everything, 99):.0f} | {everything.max()} |")
    print(
        f"\nseconds a picture: float32 {median(seconds['float32']):.3f}, bfloat16 {median(seconds['bfloat16']):.3f}; "
        f"times as fast: {show(ratios(seconds['float32'], seconds['bfloat16']))}"
    )


def _sheet(pairs: Sequence[tuple[Picture, Picture]]) -> Image.Image:
    """Lay the pictures out in columns: float32, bfloat16, and eight times their difference."""
    height, width, _ = pairs[0][0].shape
    sheet = Image.new("RGB", (len(pairs) * width, 3 * height + 3 * MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    for line, title in enumerate(("float32", "bfloat16", "difference x 8")):
        pen.text((4, line * (height + MARGIN) + 4), title, fill="black")
    for column, (exact, reduced) in enumerate(pairs):
        apart = np.clip(8 * np.abs(exact.astype(int) - reduced), 0, 255).astype(np.uint8)
        for line, picture in enumerate((exact, reduced, apart)):
            sheet.paste(Image.fromarray(picture), (column * width, line * (height + MARGIN) + MARGIN))
    return sheet


if __name__ == "__main__":
    main()
