"""Show what guidance in a part of the denoising saves, and what the pictures lose by it.

``python -m loadtests.bench.guidance_interval``: pairs of a person and a scene from the quality report, drawn with each
interval in turns by the default engine, many at once; the reader names what the pictures show.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from tqdm import tqdm

from engine.embedded import model_directory
from engine.embedded.quality.generate import load_generator
from engine.embedded.quality.pairs import Pairs, choose_pairs
from engine.embedded.quality.reader import Reader, load_reader, reader_path
from engine.embedded.recipe.stages import test_set
from loadtests.bench.pictures import Drawn, Seen, in_turns, meet, orders_of, sheet
from loadtests.ratios import ratios, show

Interval = tuple[float, float]

INTERVALS: tuple[Interval, ...] = (
    (0.0, 1.0),
    (0.0, 0.75),
    (0.0, 0.5),
    (0.0, 0.25),
    (0.25, 1.0),
    (0.25, 0.75),
    (0.0, 0.0),
)
BUCKETS = (2, 8)
SHEET_PAIRS = 8


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench.guidance_interval", description=__doc__)
    parser.add_argument("--pairs", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backend", default="openvino")
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="drawings")
    parser.add_argument("--sheet", type=Path, default=Path(".cache/guidance_interval.png"))
    arguments = parser.parse_args()
    pairs = choose_pairs(test_set(arguments), arguments.pairs)
    generator = load_generator(model_directory(), backend=arguments.backend, buckets=BUCKETS)
    drawn = {interval: Drawn() for interval in INTERVALS}
    with tqdm(total=len(INTERVALS) * len(pairs), desc="pictures") as bar:
        for turn, numbers in enumerate(np.array_split(np.arange(len(pairs)), arguments.rounds)):
            meet(generator, orders_of(pairs, numbers))
            for interval in in_turns(INTERVALS, turn):
                drawn[interval].draw(generator, orders_of(pairs, numbers, guided=interval), done=bar.update)
    _print(drawn, pairs, load_reader(reader_path()))
    arguments.sheet.parent.mkdir(parents=True, exist_ok=True)
    rows = [found.all_pictures[:SHEET_PAIRS] for found in drawn.values()]
    sheet(rows).save(arguments.sheet, optimize=True)


def _print(drawn: dict[Interval, Drawn], pairs: Pairs, reader: Reader) -> None:
    whole = drawn[INTERVALS[0]]
    print("| guided | images/s against all guided (least to most) | who | scene | mean difference, of 255 |")
    print("|---|---|---|---|---|")
    for (start, end), found in drawn.items():
        seen = Seen.of(found.all_pictures, whole.all_pictures, pairs, reader)
        print(f"| {start:g} to {end:g} | {show(ratios(whole.seconds, found.seconds))} | {seen.cells} |")


if __name__ == "__main__":
    main()
