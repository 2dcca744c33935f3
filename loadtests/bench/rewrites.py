"""``python -m loadtests.bench.rewrites``: what each rewrite of the UNet's graph for OpenVINO saves, and what lanes do.

The shipped model's UNet, compiled for the same buckets as exported and rewritten, takes turns in one process; errors
are against the graph as exported, in float32. In int8 the ranges are those of the inputs that it is run with.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch

from engine.backends.compiled.openvino_activations import activations_by_polynomials
from engine.backends.compiled.openvino_attention import join_attention
from engine.backends.compiled.openvino_conditioning import read_by_layer
from engine.backends.compiled.openvino_core import shared_core
from engine.backends.compiled.openvino_graph import CONDITIONING, OpenVINOGraph
from engine.backends.compiled.openvino_int8 import quantise, seen, watch
from engine.backends.compiled.openvino_rewrites import (
    cut_before_linear,
    spread_group_norms,
    widen_convolutions,
)
from engine.backends.compiled.openvino_runtime import LEAST_TRUNK, best_dtype, compile_options
from engine.backends.compiled.openvino_trunk import share_trunk
from engine.config import default_cache_dir
from engine.embedded import model_directory
from engine.export.activations import Range, Ranges
from engine.export.directory import ExportDirectory
from engine.export.obtain import obtain_export
from engine.export.settings import ExportSettings
from loadtests.ratios import ratios, show

Array = np.ndarray[Any, Any]
Rewrite = Callable[[Any, str], object]


def _layers(model: Any, precision: str) -> object:
    return read_by_layer(model, CONDITIONING, precision)


def _only(rewrite: Callable[[Any], object]) -> Rewrite:
    return lambda model, _: rewrite(model)


_NORMS, _CUTS, _ACTS, _WIDE, _JOIN, _TRUNK = map(
    _only,
    (
        spread_group_norms,
        cut_before_linear,
        activations_by_polynomials,
        widen_convolutions,
        join_attention,
        share_trunk,
    ),
)
_DEFAULT = (_CUTS, _ACTS, _WIDE, _layers, _JOIN)


@dataclass(frozen=True, slots=True)
class Variant:
    """A graph, rewritten so, in so many lanes; ``None`` is a lane for each thread."""

    name: str
    rewrites: tuple[Rewrite, ...] = ()
    lanes: int | None = 1
    int8: bool = False

    def fits(self, rows: int, threads: int) -> bool:
        """Say whether a backend would run so many rows in it."""
        share, rest = divmod(rows, self.lanes or threads)
        shares = share >= 2 * LEAST_TRUNK and share % 2 == 0 and not rest
        return _TRUNK not in self.rewrites or shares


FLOAT32 = (Variant("as exported"), Variant("K/V by layer", (_layers,)))
"""What is done in float32 too."""

VARIANTS = (
    *FLOAT32,
    Variant("... and GEGLU as two layers", (_layers, _CUTS)),
    Variant("... and SiLU and GELU by polynomials", (_layers, _CUTS, _ACTS)),
    Variant("... and first convolution of 16 channels", (_layers, _CUTS, _ACTS, _WIDE)),
    Variant("... and both attentions of a layer as one: the default", _DEFAULT),
    Variant("... and GroupNorm channels-last", (_NORMS, *_DEFAULT)),
    Variant("... and one trunk for both rows of an image", (_NORMS, *_DEFAULT, _TRUNK)),
    Variant("K/V and GroupNorm, a lane for each thread", (_layers, _NORMS), None),
    Variant("... and GEGLU, SiLU, GELU and first convolution", (_NORMS, _CUTS, _ACTS, _WIDE, _layers), None),
    Variant("... and both attentions of a layer as one", (_NORMS, *_DEFAULT), None),
    Variant(
        "... and one trunk for both rows of an image: `--engine-lanes`", (_NORMS, *_DEFAULT, _TRUNK), None
    ),
)

_REST = (_ACTS, _WIDE, _layers)
INT8 = (
    Variant("... and products in int8", (_layers,), int8=True),
    Variant("... and SiLU and GELU by polynomials, first convolution of 16 channels", _REST, int8=True),
    Variant("... and GroupNorm channels-last: `--engine-dtype int8`", (_NORMS, *_REST), int8=True),
    Variant("... and one trunk for both rows of an image", (_NORMS, *_REST, _TRUNK), int8=True),
    Variant("the same, a lane for each thread: `--engine-lanes`", (_NORMS, *_REST, _TRUNK), None, int8=True),
)
"""What is done for int8 where the rest is in float32."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench.rewrites", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[2, 8, 16])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=("auto", "f32", "bf16", "int8"), default="auto")
    arguments = parser.parse_args()
    precision = arguments.precision
    if precision == "auto":
        precision = "bf16" if best_dtype() == "bfloat16" else "f32"
    variants = {"bf16": VARIANTS, "f32": FLOAT32, "int8": (*FLOAT32, *INT8)}[precision]
    export = obtain_export(model_directory(), default_cache_dir(), ExportSettings())
    print(
        "| rows | graph | ms a row | ratio to as exported | to the line before (least to most) | rms error |"
    )
    print("|---|---|---|---|---|---|")
    for rows in arguments.rows:
        inputs = _inputs(export, rows)
        exact = _compile(export, inputs, (), "f32", threads=arguments.threads)().copy()
        ranges = _ranges(export, inputs) if precision == "int8" else {}
        calls = {
            variant.name: _compile(
                export,
                inputs,
                variant.rewrites,
                "f32" if precision == "int8" else precision,
                threads=arguments.threads,
                lanes=variant.lanes or arguments.threads,
                ranges=ranges if variant.int8 else None,
            )
            for variant in variants
            if variant.fits(rows, arguments.threads)
        }
        for line in _compare(rows, calls, exact, arguments.rounds):
            print(line, flush=True)


def _inputs(export: ExportDirectory, rows: int) -> dict[str, Array]:
    facts, width = export.manifest.facts, export.manifest.width
    generator = np.random.default_rng(0)
    side = facts.default_height // facts.latent_scale

    def drawn(*shape: int) -> Array:
        return generator.standard_normal(shape, dtype=np.float32)

    return {
        # One image's latents, so that any two rows may share a trunk.
        "sample": np.repeat(drawn(1, facts.latent_channels, side, side), rows, axis=0),
        "timestep": np.full(rows, 500.0, dtype=np.float32),
        "kv_text": drawn(rows, facts.prompt_tokens, width),
        "kv_ip": drawn(rows, facts.reference_tokens, width),
        "ip_mask": np.zeros((rows, facts.reference_tokens), dtype=np.float32),
    }


def _read(export: ExportDirectory, inputs: dict[str, Array], lanes: int = 1) -> Any:
    model = shared_core().read_model(export.graph("unet")[0])
    model.reshape({name: [len(value) // lanes, *value.shape[1:]] for name, value in inputs.items()})
    return model


def _ranges(export: ExportDirectory, inputs: dict[str, Array]) -> dict[str, Range]:
    model = _read(export, inputs)
    names = watch(model)
    found = shared_core().compile_model(model, "CPU", compile_options("f32", threads=None))(inputs)
    return seen(names, found, range(len(inputs["sample"])))


def _compile(
    export: ExportDirectory,
    inputs: dict[str, Array],
    rewrites: Sequence[Rewrite],
    precision: str,
    *,
    threads: int,
    lanes: int = 1,
    ranges: Ranges | None = None,
) -> Callable[[], Array]:
    core = shared_core()
    model = _read(export, inputs, lanes)
    if ranges is not None:
        quantise(model, ranges)
    for rewrite in rewrites:
        rewrite(model, precision)
    options = compile_options(precision, threads=threads, lanes=lanes)
    graph = OpenVINOGraph(core.compile_model(model, "CPU", options), ("noise",), lanes=lanes)
    given = {name: torch.from_numpy(value) for name, value in inputs.items()}
    rows = range(len(inputs["sample"]))

    def run() -> Array:
        found: Array = graph(given, rows)["noise"].numpy()
        return found

    return run


def _compare(rows: int, calls: dict[str, Callable[[], Array]], exact: Array, rounds: int) -> Iterator[str]:
    errors = {name: float(np.sqrt(((call() - exact) ** 2).mean())) for name, call in calls.items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    turn = list(calls.items())
    for _ in range(rounds):
        turn = [*turn[1:], turn[0]]  # another first one every round
        for name, call in turn:
            call()  # the last one's weights are still in the cache
            began = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - began)
    first = before = next(iter(calls))
    for name, taken in seconds.items():
        yield (
            f"| {rows} | {name} | {1000 * median(taken) / rows:.2f} | {ratios(taken, seconds[first])[0]:.2f} "
            f"| {show(ratios(taken, seconds[before]))} | {errors[name]:.4f} |"
        )
        before = name


if __name__ == "__main__":
    main()
