"""Run one stage of the recipe: `python -m engine.embedded.recipe STAGE`."""

import argparse
from pathlib import Path

from engine.embedded import model_directory
from engine.embedded.recipe import stages

STAGES = {
    "world": stages.world,
    "vae": stages.vae,
    "clip": stages.clip,
    "image": stages.image,
    "reader": stages.reader,
    "unet": stages.unet,
    "adapter": stages.adapter,
    "export": stages.export,
    "calibrate": stages.calibrate,
}
# For two cores; the UNet and the VAE are the ones to give more.
MINUTES = {"vae": 30.0, "clip": 16.0, "image": 11.0, "reader": 12.0, "unet": 47.0, "adapter": 11.0}


def main() -> None:
    """Parse the command line and run a stage."""
    parser = argparse.ArgumentParser(prog="python -m engine.embedded.recipe", description=__doc__)
    parser.add_argument("stage", choices=tuple(STAGES))
    parser.add_argument(
        "--minutes",
        type=float,
        help="wall-clock budget of the stage, earlier runs included (default: the stage's own)",
    )
    parser.add_argument("--persons", type=int, default=6000, help="people in the training set")
    parser.add_argument("--device", default="cpu", help="cpu, or a GPU as torch names it")
    parser.add_argument("--workers", type=int, default=2, help="single-threaded training processes, on a CPU")
    parser.add_argument(
        "--cache", type=Path, default=Path(".cache"), help="drawings, checkpoints, curves, sheets"
    )
    parser.add_argument("--weights", type=Path, default=model_directory(), help="where exports go")
    options = parser.parse_args()
    if options.minutes is None:
        options.minutes = MINUTES.get(options.stage, 0.0)
    STAGES[options.stage](options)


if __name__ == "__main__":
    main()
