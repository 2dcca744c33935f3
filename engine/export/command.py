"""The command ``limner-engine export``."""

from __future__ import annotations

import argparse
import re
import sys
import time
from pathlib import Path

from engine.export.settings import DTYPES, OPSETS, ExportSettings
from engine.models.errors import ModelError
from engine.models.lora_choice import add_lora_option


def add_export(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser("export", help="export a model to ONNX graphs for compiled backends")
    parser.set_defaults(run=run_export)
    parser.add_argument("model", type=Path, help="model directory in diffusers' layout")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="directory to make")
    parser.add_argument(
        "--adapter", help="default IP-Adapter, by its file's stem, where the model has several"
    )
    add_lora_option(parser)
    parser.add_argument("--dtype", default="float32", choices=DTYPES)
    parser.add_argument("--opset", type=int, choices=OPSETS, help="default 21, for bfloat16 22")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--size", type=_size, metavar="HxW", help="make the UNet's height and width static")
    sizes.add_argument("--dynamic-size", action="store_true", help="leave them dynamic (the default)")


def run_export(options: argparse.Namespace) -> int:
    """Export, telling of each part on standard error; return the exit status."""
    from engine.export.writer import export_model

    began = time.monotonic()

    def progress(line: str) -> None:
        sys.stderr.write(f"{time.monotonic() - began:7.1f} s  {line}\n")
        sys.stderr.flush()

    try:
        settings = ExportSettings(
            adapter=options.adapter,
            dtype=options.dtype,
            size=options.size,
            opset=options.opset,
            loras=tuple(options.loras),
        )
        manifest = export_model(options.model, options.output, settings, progress)
    except (ModelError, ValueError) as error:
        sys.stderr.write(f"limner-engine: {type(error).__name__}: {error}\n")
        return 2
    size = sum(file.bytes for file in manifest.everything)
    progress(f"{len(manifest.graphs)} graphs, {size / 1e6:.1f} MB, opset {manifest.opset}, {manifest.dtype}")
    return 0


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write one like 512x512")
    return int(match[1]), int(match[2])
