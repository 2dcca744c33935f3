"""Compiled backends from a directory: an export as it is, or a model whose export the cache holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.backends.compiled.backend import CompiledBackend, CompiledSettings
from engine.backends.options import BackendOptions, UnknownBackendError
from engine.export.activations import check_calibrated
from engine.export.directory import ExportDirectory
from engine.export.manifest import MANIFEST
from engine.export.obtain import obtain_export
from engine.export.settings import ExportSettings


def create_openvino(root: Path, options: BackendOptions) -> CompiledBackend:
    """Create a backend on OpenVINO. Raises ``UnknownBackendError`` and the ``ModelError`` family.

    bfloat16 and int8 are how UNet and decoder are computed, not how weights are kept: all types share one export.
    bfloat16 is chosen where the CPU has instructions for it (docs/adr/0006), int8 only where it is asked for
    (docs/adr/0014); what is no product is then in the type that would be chosen.
    """
    from engine.backends.compiled.openvino_runtime import (
        OpenVINORuntime,
        OpenVINOSettings,
        best_dtype,
        require_int8,
    )

    with _needing("openvino"):
        best = best_dtype()
        dtype = options.dtype_of("openvino", ("float32", "bfloat16", "int8"), best=best)
        if dtype == "int8":
            require_int8()
        runtime = OpenVINORuntime(
            OpenVINOSettings(
                precision="bf16" if (best if dtype == "int8" else dtype) == "bfloat16" else "f32",
                int8=dtype == "int8",
                threads=options.threads,
                lanes=options.lanes,
                cache=None if options.cache is None else options.cache / "openvino",
            )
        )
    if dtype == "int8" and not (root / MANIFEST).is_file():
        check_calibrated(root)  # before minutes of exporting
    export = open_export(root, options)
    if dtype == "int8":
        export.activations()
    return CompiledBackend(export, runtime, _settings(options))


def create_onnxruntime(root: Path, options: BackendOptions) -> CompiledBackend:
    """Create a backend on ONNX Runtime. Raises ``UnknownBackendError`` and the ``ModelError`` family."""
    from engine.backends.compiled.onnx_runtime import ONNXRuntime

    options.dtype_of("onnxruntime", ("float32",))
    with _needing("onnxruntime"):
        runtime = ONNXRuntime(options.threads)
    return CompiledBackend(open_export(root, options), runtime, _settings(options))


def open_export(root: Path, options: BackendOptions) -> ExportDirectory:
    """Open an export, or the cached export of a model directory. Raises the ``ModelError`` family."""
    return obtain_export(root, options.cache, ExportSettings(adapter=options.adapter, loras=options.loras))


def _settings(options: BackendOptions) -> CompiledSettings:
    return CompiledSettings().with_buckets(options.buckets)


@contextmanager
def _needing(package: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise UnknownBackendError(f"backend {package} needs the package {package}: {error}") from error
