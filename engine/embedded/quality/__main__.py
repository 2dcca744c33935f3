"""Measure what the model in the box draws, and write the figures into its card.

Parts that are finished are kept in the cache, so that a run with --only completes the same report.
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

from engine.embedded import model_directory

PARTS = ("main", "grid", "vae", "sheets")


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, measure, and write the report."""
    parser = argparse.ArgumentParser(prog="python -m engine.embedded.quality", description=__doc__)
    parser.add_argument("--weights", type=Path, default=model_directory(), help="what to measure")
    parser.add_argument("--reader", type=Path, help="the reader's weights; the shipped ones by default")
    parser.add_argument("--pairs", type=int, default=500, help="people and scenes in the main settings")
    parser.add_argument("--grid-pairs", type=int, default=100, help="of these, how many at each grid point")
    parser.add_argument("--only", choices=PARTS, help="measure one part; the report has what is finished")
    parser.add_argument("--out", type=Path, default=Path("docs/quality.json"), help="figures as JSON")
    parser.add_argument("--images", type=Path, default=Path("docs/images/quality"), help="plot and sheets")
    parser.add_argument(
        "--card", type=Path, help="Markdown file to fill in; the weights' MODEL_CARD.md by default"
    )
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="drawings and finished parts")
    parser.add_argument("--threads", type=int, help="of torch; all cores by default")
    options = parser.parse_args(arguments)
    if not 2 <= options.grid_pairs <= options.pairs:
        parser.error("--grid-pairs must be at least 2 and at most --pairs")
    _measure(options)


def _measure(options: argparse.Namespace) -> None:
    import torch
    from tqdm import tqdm

    from engine.embedded.quality.markdown import fragment, insert
    from engine.embedded.quality.measure import Measurement, draw_curves
    from engine.embedded.quality.pairs import choose_pairs
    from engine.embedded.quality.reader import load_reader, reader_path
    from engine.embedded.quality.readings import Store, fingerprint
    from engine.embedded.quality.report import assemble
    from engine.embedded.recipe.stages import test_set

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    reader_file = options.reader or reader_path()
    reader = load_reader(reader_file)
    pairs = choose_pairs(test_set(options), options.pairs)
    measured = [*options.weights.rglob("*.safetensors"), *options.weights.rglob("*.json"), reader_file]
    store = Store(options.cache / "quality" / fingerprint(measured))
    work = Measurement(weights=options.weights, reader=reader, pairs=pairs, store=store)
    parts: dict[str, Callable[[], None]] = {
        "main": work.main,
        "grid": lambda: work.grid(options.grid_pairs),
        "vae": lambda: work.vae(options.images),
        "sheets": lambda: work.sheets(options.images),
    }
    for name in (options.only,) if options.only else PARTS:
        parts[name]()
    report = assemble(store, pairs, tuple(reader.attributes), grid_pairs=options.grid_pairs)
    if "grid" in report:
        draw_curves(report, options.images / "curves.png")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n")
    card = options.card or options.weights / "MODEL_CARD.md"
    card.parent.mkdir(parents=True, exist_ok=True)
    text = card.read_text() if card.exists() else ""
    images = Path(os.path.relpath(options.images, card.parent)).as_posix()
    card.write_text(insert(text, fragment(report, images)))
    tqdm.write(f"wrote {options.out}, {options.images} and the figures in {card}")


if __name__ == "__main__":
    main()
