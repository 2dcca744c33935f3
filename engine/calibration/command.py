"""The command ``limner-engine calibrate``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from engine.export.activations import ACTIVATIONS
from engine.models.lora_choice import add_lora_option


def add_calibrate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "calibrate", help="find the ranges of a model's activations, which --dtype int8 needs"
    )
    parser.set_defaults(run=run_calibrate)
    parser.add_argument("model", type=Path, help="model directory in diffusers' layout")
    parser.add_argument(
        "--prompts",
        type=Path,
        required=True,
        metavar="FILE",
        help="prompts as they are to be asked for, one a line",
    )
    parser.add_argument("--references", type=Path, metavar="DIR", help="pictures of people")
    parser.add_argument("--images", type=_count, default=64, help="portraits to draw (default 64)")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help=f"default {ACTIVATIONS} in the model's directory"
    )
    parser.add_argument(
        "--adapter", help="default IP-Adapter, by its file's stem, where the model has several"
    )
    add_lora_option(parser)
    parser.add_argument("--threads", type=_count, help="CPU threads")
    parser.add_argument(
        "--cache-dir", type=Path, help="where exports are kept (default limner in the user's cache directory)"
    )


def run_calibrate(options: argparse.Namespace) -> int:
    """Calibrate, telling of progress on standard error; return the exit status."""
    from engine.calibration.calibrate import calibrate, read_material
    from engine.config import default_cache_dir
    from engine.loop.logs import configure_logging
    from engine.models.errors import ModelError
    from engine.models.layout import ModelLayout

    began = time.monotonic()
    configure_logging("warning")
    done = 0

    def progress(more: int) -> None:
        nonlocal done
        done += more
        sys.stderr.write(f"{time.monotonic() - began:7.1f} s  {done} of {options.images} portraits\n")
        sys.stderr.flush()

    try:
        ModelLayout.open(options.model)  # an export keeps what was found when it was made
        output = options.output or options.model / ACTIVATIONS
        if not os.access(output.parent, os.W_OK):  # better told before the work than after it
            raise PermissionError(f"{output.parent} cannot be written to; choose another --output")
        material = read_material(options.prompts, options.references, options.images)
        found = calibrate(
            options.model,
            options.cache_dir or default_cache_dir(),
            material,
            adapter=options.adapter,
            loras=options.loras,
            threads=options.threads,
            progress=progress,
        )
        found.write(output)
    except (ModelError, ValueError, OSError) as error:
        sys.stderr.write(f"limner-engine: {type(error).__name__}: {error}\n")
        return 2
    off = ", ".join(f"{graph} is off by {error:.1%}" for graph, error in found.errors.items())
    sys.stderr.write(
        f"{time.monotonic() - began:7.1f} s  wrote {output}: {len(found.ranges)} layers; in int8 {off}\n"
    )
    return 0


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: at least 1 is possible")
    return number
