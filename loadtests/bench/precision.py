"""Draw the same pictures in several types of numbers: what each takes, what it changes, what the reader still reads.

``python -m loadtests.bench.precision``: pairs of a person and a scene from the quality report, drawn by the engine loop
on OpenVINO in each type in turns, as many together as its bucket holds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from engine.backends.compiled.openvino_runtime import best_dtype, computes_int8
from engine.backends.registry import create_backend
from engine.config import EngineConfig, default_cache_dir
from engine.embedded import model_directory
from engine.embedded.quality.generate import Generator
from engine.embedded.quality.pairs import choose_pairs
from engine.embedded.quality.reader import load_reader, reader_path
from engine.embedded.recipe.stages import test_set
from loadtests.bench.pictures import Drawn, Pictures, Seen, in_turns, meet, orders_of
from loadtests.ratios import ratios, show

EXACT = "float32"
REDUCED = ("bfloat16", "int8")
SHEET_PAIRS = 10
MARGIN = 18


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench.precision", description=__doc__)
    parser.add_argument(
        "--types",
        nargs="+",
        choices=REDUCED,
        help="beside float32; by default those that the CPU computes in",
    )
    parser.add_argument("--pairs", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--bucket", type=int, default=8, help="in rows")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="drawings")
    parser.add_argument("--sheet", type=Path, default=Path(".cache/precision.png"))
    arguments = parser.parse_args()
    together = arguments.bucket // 2
    if arguments.bucket % 2 or arguments.pairs % (arguments.rounds * together):
        parser.error(
            f"{arguments.pairs} pairs in {arguments.rounds} rounds do not come in batches of {together}, "
            "which fill an even --bucket"
        )
    types = (EXACT, *(arguments.types or possible()))
    pairs = choose_pairs(test_set(arguments), arguments.pairs)
    generators = {kind: _generator(kind, arguments) for kind in types}
    for generator in generators.values():
        meet(generator, orders_of(pairs, np.arange(len(pairs))))
    drawn = {kind: Drawn() for kind in types}
    with tqdm(total=len(types) * len(pairs), desc="pictures") as bar:
        for turn, numbers in enumerate(np.array_split(np.arange(len(pairs)), arguments.rounds)):
            for kind in in_turns(types, turn):
                drawn[kind].draw(
                    generators[kind], orders_of(pairs, numbers), done=bar.update, together=together
                )
    exact, reader = drawn[EXACT].all_pictures, load_reader(reader_path())
    print(
        "| type | ms a picture | time over float32 (least to most) | who | scene | mean difference, of 255 |"
    )
    print("|---|---|---|---|---|---|")
    for kind, found in drawn.items():
        times = show(ratios(found.seconds, drawn[EXACT].seconds))
        seen = Seen.of(found.all_pictures, exact, pairs, reader)
        print(f"| {kind} | {1000 * np.median(found.seconds):.0f} | {times} | {seen.cells} |")
    for kind in types[1:]:
        levels = np.abs(exact.astype(int) - drawn[kind].all_pictures)
        print(f"\n{kind}: 99th percentile {np.percentile(levels, 99):.0f}, largest {levels.max()} of 255")
    arguments.sheet.parent.mkdir(parents=True, exist_ok=True)
    _sheet({kind: found.all_pictures[:SHEET_PAIRS] for kind, found in drawn.items()}).save(
        arguments.sheet, optimize=True
    )


def possible() -> tuple[str, ...]:
    """Return the reduced types that this CPU computes in."""
    known = {"bfloat16": best_dtype() == "bfloat16", "int8": computes_int8()}
    return tuple(kind for kind in REDUCED if known[kind])


def _generator(dtype: str, arguments: argparse.Namespace) -> Generator:
    buckets = (arguments.bucket,)
    backend = create_backend(
        "openvino",
        model_directory(),
        dtype=dtype,
        threads=arguments.threads,
        buckets=buckets,
        cache=default_cache_dir(),
    )
    return Generator(backend, EngineConfig(backend="openvino", buckets=buckets), clock=lambda: 0.0)


def _sheet(drawn: dict[str, Pictures]) -> Image.Image:
    """Lay pictures out: a line for each type, and for each but the first eight times its difference from that."""
    exact = next(iter(drawn.values()))
    lines: dict[str, Pictures] = {}
    for kind, pictures in drawn.items():
        lines[kind] = pictures
        if kind != EXACT:
            apart = np.clip(8 * np.abs(exact.astype(int) - pictures), 0, 255).astype(np.uint8)
            lines[f"{kind}: difference x 8"] = apart
    count, height, width, _ = exact.shape
    sheet = Image.new("RGB", (count * width, len(lines) * (height + MARGIN)), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (title, pictures) in enumerate(lines.items()):
        top = number * (height + MARGIN)
        pen.text((4, top + 4), title, fill="black")
        sheet.paste(Image.fromarray(np.concatenate(list(pictures), axis=1)), (0, top + MARGIN))
    return sheet


if __name__ == "__main__":
    main()
