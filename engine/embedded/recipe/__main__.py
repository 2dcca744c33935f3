"""Run one stage of the recipe: `python -m engine.embedded.recipe STAGE`."""

import argparse
from pathlib import Path

from engine.embedded import model_directory
from engine.embedded.recipe import stages

STAGES = {
    "world": stages.world,
    "vae": stages.vae,
    "clip": stages.clip,
    "unet": stages.unet,
    "decoder": stages.decoder,
    "export": stages.export,
    "sheet": stages.sheet,
    "measure": stages.measure,
}


def main() -> None:
    """Parse the command line and run a stage."""
    parser = argparse.ArgumentParser(prog="python -m engine.embedded.recipe", description=__doc__)
    parser.add_argument("stage", choices=tuple(STAGES))
    parser.add_argument(
        "--minutes", type=float, default=30.0, help="wall-clock budget; the schedule follows it"
    )
    parser.add_argument("--workers", type=int, default=2, help="single-threaded training processes")
    parser.add_argument(
        "--cache", type=Path, default=Path(".cache"), help="drawings, checkpoints, curves, sheets"
    )
    parser.add_argument("--weights", type=Path, default=model_directory(), help="where exports go")
    options = parser.parse_args()
    STAGES[options.stage](options)


if __name__ == "__main__":
    main()
