"""The command ``limner-engine build``."""

from __future__ import annotations

import argparse
import re
import sys
import time
from pathlib import Path

from engine.export.settings import DTYPES, ExportSettings
from engine.models.lora_choice import add_lora_option


def add_build(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser("build", help="build a model's TensorRT engine into the engine cache")
    parser.set_defaults(run=run_build)
    parser.add_argument("model", type=Path, help="model directory in diffusers' layout, or an export")
    parser.add_argument("--backend", required=True, choices=("tensorrt", "tensorrt-rtx"))
    parser.add_argument("--buckets", type=_numbers, help="batch sizes in rows (default 1,2,4,8,16)")
    parser.add_argument(
        "--size", type=_sizes, metavar="WxH[,WxH]", help="in pixels; the model's own if not given"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="CACHE",
        help="engine cache (default limner in the user's cache directory)",
    )
    parser.add_argument("--adapter", help="IP-Adapter, by its file's stem, where the model has several")
    add_lora_option(parser)
    parser.add_argument("--dtype", default="float16", choices=DTYPES)
    parser.add_argument(
        "--target",
        type=lambda text: tuple(text.split(",")),
        default=(),
        metavar="X.Y[,X.Y]",
        help="compute capabilities to build for ahead of time, without a GPU (tensorrt-rtx)",
    )
    parser.add_argument("--refit", action="store_true", help="allow new weights later without another build")
    parser.add_argument(
        "--distributive-independence",
        action="store_true",
        help="rows do not influence one another's bits; one engine a bucket",
    )
    parser.add_argument("--level", type=int, choices=range(6), help="TensorRT's optimisation level")


def run_build(options: argparse.Namespace) -> int:
    """Build, telling of each phase on standard error; return the exit status."""
    from engine.backends.tensorrt.backend import TensorRTSettings
    from engine.backends.tensorrt.builder import BuildSettings
    from engine.backends.tensorrt.cache import EngineCache
    from engine.backends.tensorrt.driver import find_gpu
    from engine.backends.tensorrt.engines import Engines, key_of
    from engine.backends.tensorrt.errors import TensorRTError
    from engine.backends.tensorrt.graph import unet_graph
    from engine.backends.tensorrt.package import load_package
    from engine.config import default_cache_dir
    from engine.export.obtain import obtain_export
    from engine.loop.logs import configure_logging
    from engine.models.errors import ModelError

    began = time.monotonic()
    configure_logging("warning")

    def report(line: str) -> None:
        sys.stderr.write(f"{time.monotonic() - began:7.1f} s  {line}\n")
        sys.stderr.flush()

    try:
        settings = TensorRTSettings(
            sizes=options.size or (),
            build=BuildSettings(
                refit=options.refit,
                distributive_independence=options.distributive_independence,
                level=options.level,
                targets=options.target,
            ),
        ).with_buckets(options.buckets)
        package = load_package(options.backend)
        # Ahead of time no driver is needed, and with one its GPU does not matter.
        gpu = None if options.target else find_gpu()
        cache = options.output or default_cache_dir()
        report(f"exporting {options.model}, unless that was done before")
        export = obtain_export(
            options.model,
            cache,
            ExportSettings(adapter=options.adapter, dtype=options.dtype, loras=tuple(options.loras)),
        )
        graph, facts = unet_graph(export), export.manifest.facts
        profiles = settings.profiles(facts)
        key = key_of(package, gpu, graph, profiles, settings.build, model=facts.name)
        engines = Engines(package, EngineCache(cache), gpu=gpu, report=report)
        obtained = engines.obtain(key, graph, settings.build, must_store=True)
    except (ModelError, TensorRTError, ValueError) as error:
        sys.stderr.write(f"limner-engine: {type(error).__name__}: {error}\n")
        return 2
    report(f"{'built' if obtained.built else 'nothing to do, built before'}: {obtained.folder}")
    return 0


def _numbers(text: str) -> tuple[int, ...]:
    numbers = tuple(int(part) for part in text.split(","))
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: at least 1 is possible")
    return numbers


def _sizes(text: str) -> tuple[tuple[int, int], ...]:
    sizes = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)x(\d+)", part)
        if match is None:
            raise argparse.ArgumentTypeError(f"{part!r} is no size; write one like 512x512")
        sizes.append((int(match[2]), int(match[1])))
    return tuple(sizes)
