"""OpenVINO: the embedded default on any CPU."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import structlog
import torch

from engine.backends.compiled.blobs import HEADER, BlobCache
from engine.backends.compiled.mapped import Mapped
from engine.backends.compiled.openvino_attention import join_attention
from engine.backends.compiled.openvino_conditioning import read_by_layer
from engine.backends.compiled.openvino_core import shared_core
from engine.backends.compiled.openvino_graph import CONDITIONING, OpenVINOGraph
from engine.backends.compiled.openvino_int8 import quantise
from engine.backends.compiled.openvino_rewrites import REWRITES, rewrite_for_fast_products
from engine.backends.compiled.openvino_surgery import static
from engine.backends.compiled.openvino_trunk import share_trunk
from engine.backends.compiled.runtime import CompiledGraph, Pairs, Shape
from engine.backends.options import UnknownBackendError
from engine.export.activations import ACTIVATIONS, Ranges
from engine.export.directory import ExportDirectory
from engine.export.errors import GraphCompileError, NotCalibratedError
from engine.export.manifest import GraphEntry
from engine.export.signature import check_signature

log = structlog.get_logger()

REDUCED = ("unet", "vae_decoder")
"""Graphs that bfloat16 and int8 speed up; encoders and projections take little of a picture's time: exact."""

LEAST_TRUNK = 2
"""Rows of a shared trunk: OpenVINO fuses what follows one row otherwise, and its last bits are others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenVINOSettings:
    """``precision`` is the arithmetic of UNet and decoder, but for their products where those are in ``int8``;
    ``threads`` None leaves their number to OpenVINO, ``lanes`` is how many parts of a batch run at the same time, at
    most, ``cache`` is a folder for compiled graphs, or None to compile them anew in every process.
    """

    precision: Literal["f32", "bf16"] = "f32"
    int8: bool = False
    threads: int | None = None
    lanes: int = 1
    cache: Path | None = None


class OpenVINORuntime:
    """Compiles graphs for the CPU; one call at a time has all threads."""

    name = "openvino"

    def __init__(self, settings: OpenVINOSettings) -> None:
        import openvino

        self.device = torch.device("cpu")
        self._settings = settings
        self._openvino = openvino
        self._core = shared_core()
        self._blobs = None if settings.cache is None else BlobCache(settings.cache)
        # GroupNorm rewritten costs 40 MB a bucket, and pairs a graph more. For who asks for it alone: by several lanes,
        # or by one thread, as where an engine is one of several.
        self._memory_for_speed = settings.lanes > 1 or settings.threads == 1
        self.compiled = 0
        """Graphs that were compiled and not read from the cache."""

    def pairs(self, rows: int) -> Pairs:
        """Return the positions that share a trunk (``share_trunk``): within a lane, in its first and second half.

        There are none where memory was not given for speed: a bucket that shares has another graph beside.
        """
        lanes = self._most_lanes(rows)
        share, half = rows // lanes, rows // lanes // 2
        if not self._memory_for_speed or share % 2 or half < LEAST_TRUNK:
            return ()
        return [
            (first, first + half)
            for lane in range(lanes)
            for first in range(lane * share, lane * share + half)
        ]

    def compile(
        self, export: ExportDirectory, graph: str, shapes: Mapping[str, Shape], *, paired: bool = False
    ) -> CompiledGraph:
        """Compile a graph for input shapes, or read what was compiled before.

        Raises ``GraphCompileError``, for int8 ``NotCalibratedError`` and ``CorruptActivationsError`` too.
        """
        path, entry = export.graph(graph)
        int8 = self._settings.int8 and graph in REDUCED
        lanes = self._lanes(shapes)
        shapes = {name: (_share(shape[0], lanes), *shape[1:]) for name, shape in shapes.items()}
        precision = self._settings.precision if graph in REDUCED else "f32"
        options = compile_options(precision, threads=self._settings.threads, lanes=lanes)
        kept: Path | None = None
        if self._blobs is not None:
            content = [entry.onnx.sha256, entry.data.sha256 if entry.data else ""]
            if int8:
                content += [
                    "int8",
                    *(file.sha256 for file in export.manifest.files if file.file == ACTIVATIONS),
                ]
            here = (
                REWRITES,
                self._memory_for_speed and precision == "bf16",
                paired,
                self._openvino.__version__,
                *self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
            )
            kept = self._blobs.path((*content, *here, *sorted(options.items()), *shapes.items()))
        found = None if kept is None else self._read(kept, options)
        if found is None:
            ranges = export.activations() if int8 else None
            compiled = self._compile(path, entry, shapes, options, ranges, paired=paired)
            if self._blobs is not None and kept is not None:
                written = io.BytesIO()
                compiled.export_model(written)
                self._blobs.write(kept, written.getbuffer())
                del written
                # As every later start has it: a graph that was just compiled holds more memory than one that was read.
                found = self._read(kept, options)
        compiled, mapped = (compiled, None) if found is None else found
        return OpenVINOGraph(
            compiled,
            [spec.name for spec in entry.outputs],
            lanes=lanes,
            file=mapped,
        )

    def _lanes(self, shapes: Mapping[str, Shape]) -> int:
        """Return among how many lanes the rows of these inputs are shared out: the UNet's alone, and evenly."""
        rows = shapes[CONDITIONING[0]][0] if set(CONDITIONING) <= shapes.keys() else None
        return 1 if rows is None else self._most_lanes(rows)

    def _most_lanes(self, rows: int) -> int:
        return max(lanes for lanes in range(1, self._settings.lanes + 1) if rows % lanes == 0)

    def _compile(
        self,
        path: Path,
        entry: GraphEntry,
        shapes: Mapping[str, Shape],
        options: dict[str, Any],
        ranges: Ranges | None,
        *,
        paired: bool,
    ) -> Any:
        precision = options["INFERENCE_PRECISION_HINT"]
        try:
            # Read again for each bucket, which only a first start does: kept, it would hold the weights once more.
            model = self._core.read_model(path)
            check_signature(path, entry, _names(model.inputs), _names(model.outputs))
            sizes = {name: [-1 if size is None else size for size in shape] for name, shape in shapes.items()}
            model.reshape(sizes)
            conditioned = set(CONDITIONING) <= shapes.keys()
            self._rewrite(model, path, precision, ranges, conditioned=conditioned)
            if paired and not share_trunk(model):
                raise GraphCompileError("no part of the graph reads latents and timestep alone", path=path)
            self.compiled += 1
            return self._core.compile_model(model, "CPU", options)
        except RuntimeError as error:
            raise GraphCompileError(
                "OpenVINO cannot compile the graph", path=path, found=str(error).strip()[:500]
            ) from error

    def _rewrite(
        self, model: Any, path: Path, precision: str, ranges: Ranges | None, *, conditioned: bool
    ) -> None:
        """Rewrite a graph for how it is to be computed; one of dynamic shapes is only quantised."""
        fixed = static(model)
        if ranges is not None:
            _quantise(model, ranges, path.with_name(ACTIVATIONS))
        if fixed and (ranges is not None or precision == "bf16"):
            # Beside products in int8 OpenVINO's own way is a tenth of a tick.
            rewrite_for_fast_products(model, spread=self._memory_for_speed or ranges is not None)
        if not (fixed and conditioned):
            return
        if not read_by_layer(model, CONDITIONING, precision):
            log.warning("the graph does not let keys and values be read by layer", path=str(path))
        elif precision == "bf16":
            join_attention(model)

    def _read(self, kept: Path, options: dict[str, Any]) -> tuple[Any, Mapped] | None:
        """Return the compiled graph of a file, and the file; None if there is none that this OpenVINO takes."""
        if self._blobs is None or not self._blobs.valid(kept):
            return None
        mapped = Mapped(kept)
        content = np.frombuffer(mapped.memory, dtype=np.uint8, offset=HEADER)
        try:
            tensor = self._openvino.Tensor(content, shared_memory=True)
            return self._core.import_model(tensor, "CPU", options), mapped
        except RuntimeError as error:
            log.warning(
                "compiled graph is refused and will be compiled again", path=str(kept), error=str(error)[:300]
            )
            self._blobs.discard(kept)
            return None


def compile_options(precision: str, *, threads: int | None, lanes: int = 1) -> dict[str, Any]:
    """Return what OpenVINO is told about a graph; ``precision`` is ``f32`` or ``bf16``, as it writes them."""
    options: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY" if lanes == 1 else "THROUGHPUT",
        "NUM_STREAMS": lanes,
        # A thread bound to a core waits for it while the server, or a neighbour, has it and another is idle.
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": precision,
    }
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    return options


def best_dtype() -> str:
    """Return ``bfloat16`` where the CPU computes in it, ``float32`` where it would be emulated."""
    capabilities = shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bfloat16" if "BF16" in capabilities else "float32"


def computes_int8() -> bool:
    """Whether the CPU multiplies and adds 8-bit integers without overflow (VNNI).

    Without it OpenVINO's sums of two products saturate at 16 bits, and pictures are wrong. Other kinds of CPU than x86
    were never tried.
    """
    known = torch.cpu.get_capabilities()
    return bool(known.get("avx512_vnni") or known.get("avx_vnni"))


def require_int8() -> None:
    """Raise ``UnknownBackendError`` unless ``computes_int8``."""
    if not computes_int8():
        raise UnknownBackendError("int8 needs a CPU with VNNI (x86 with AVX-512 VNNI, AVX-VNNI or AMX)")


def _quantise(model: Any, ranges: Ranges, path: Path) -> None:
    try:
        quantise(model, ranges)
    except KeyError as error:
        raise NotCalibratedError(
            "the ranges of activations are of another model: run limner-engine calibrate on this one",
            path=path,
            expected=f"a range of each input of {error.args[0]}",
            found="none, or of another number of channels",
        ) from error


def _share(rows: int | None, lanes: int) -> int | None:
    return None if rows is None else rows // lanes


def _names(ports: Any) -> list[str]:
    return [port.any_name for port in ports]
