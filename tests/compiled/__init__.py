"""Exports of tiny models and backends that run them, each made once a module."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from engine.backends.compiled.backend import CompiledBackend, CompiledSettings
from engine.backends.compiled.onnx_runtime import ONNXRuntime
from engine.backends.compiled.openvino_runtime import OpenVINORuntime, OpenVINOSettings
from engine.backends.compiled.runtime import Runtime
from engine.export.directory import ExportDirectory
from engine.export.settings import ExportSettings
from engine.export.writer import export_model
from tests.keeping import kept

RUNTIMES = ("openvino", "onnxruntime")


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
    return OpenVINORuntime(OpenVINOSettings(precision=precision, threads=threads, lanes=lanes or threads))


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
