"""Exports of tiny models and backends that run them, each made once a module."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from engine.backends.compiled.backend import CompiledBackend, CompiledSettings
from engine.backends.compiled.onnx_runtime import ONNXRuntime
from engine.backends.compiled.openvino_runtime import OpenVINORuntime, OpenVINOSettings, computes_int8
from engine.backends.compiled.runtime import Runtime
from engine.calibration.calibrate import Material, calibrate
from engine.export.activations import ACTIVATIONS
from engine.export.directory import ExportDirectory
from engine.export.settings import ExportSettings
from engine.export.writer import export_model
from tests.equivalence.harness import portrait
from tests.keeping import kept

RUNTIMES = ("openvino", "onnxruntime")

NEEDS_INT8 = pytest.mark.skipif(not computes_int8(), reason="this CPU has no VNNI")


def calibrated(root: Path) -> Path:
    """Give a model the ranges of its activations, from a few pictures, before it is exported; return it.

    Nothing where the CPU does not compute in int8: what needs them does not run there.
    """
    if not computes_int8():
        return root
    material = Material(
        prompts=("a portrait of a woman", "a red hat"),
        references=[np.array(portrait(number)) for number in range(3)],
        images=8,
    )
    calibrate(root, root.with_name("cache"), material, threads=1).write(root / ACTIVATIONS)
    return root


def exported(root: Path, adapter: str | None = None) -> ExportDirectory:
    """Export a model beside its directory."""
    return _exported(root, adapter)


@kept
def _exported(root: Path, adapter: str | None) -> ExportDirectory:
    output = root.with_name(f"{root.name}-{adapter}.export")
    export_model(root, output, ExportSettings(adapter=adapter), progress=lambda line: None)
    return ExportDirectory.open(output)


def make_runtime(name: str, dtype: str = "float32", threads: int = 1, lanes: int | None = None) -> Runtime:
    """Return a runtime, by default of one thread, as the tests run everything else, with a lane for each."""
    if name == "onnxruntime":
        return ONNXRuntime(threads=threads)
    precision: Literal["f32", "bf16"] = "bf16" if dtype == "bfloat16" else "f32"
    return OpenVINORuntime(
        OpenVINOSettings(precision=precision, int8=dtype == "int8", threads=threads, lanes=lanes or threads)
    )


@kept
def compiled(
    runtime: str,
    root: Path,
    adapter: str | None = None,
    dtype: str = "float32",
    buckets: tuple[int, ...] = (1, 2, 4, 8),
    threads: int = 1,
    lanes: int | None = None,
) -> CompiledBackend:
    """Return a backend on the export of a model."""
    return CompiledBackend(
        exported(root, adapter),
        make_runtime(runtime, dtype, threads, lanes),
        CompiledSettings(buckets=buckets),
    )
