"""Compiled backends from a directory: an export as it is, or a model whose export the cache holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.backends.compiled.backend import CompiledBackend, CompiledSettings
from engine.backends.registry import BackendRequest, UnknownBackendError
from engine.config import default_cache_dir
from engine.export.cache import cached_export
from engine.export.directory import ExportDirectory
from engine.export.errors import ExportMismatchError
from engine.export.manifest import MANIFEST
from engine.export.settings import ExportSettings


def create_openvino(request: BackendRequest) -> CompiledBackend:
    """Create a backend on OpenVINO. Raises ``UnknownBackendError`` and the ``ModelError`` family.

    bfloat16 is how the UNet is computed, not how weights are kept: both types share one export. It is chosen where the
    CPU has instructions for it (docs/adr/0006).
    """
    from engine.backends.compiled.openvino_runtime import (
        OpenVINORuntime,
        OpenVINOSettings,
        best_dtype,
    )

    with _needing("openvino"):
        dtype = request.dtype_of("openvino", ("float32", "bfloat16"), best=best_dtype())
        runtime = OpenVINORuntime(
            OpenVINOSettings(
                precision="bf16" if dtype == "bfloat16" else "f32",
                threads=request.threads,
                cache=_cache(request) / "openvino",
            )
        )
    return CompiledBackend(open_export(request), runtime, _settings(request))


def create_onnxruntime(request: BackendRequest) -> CompiledBackend:
    """Create a backend on ONNX Runtime. Raises ``UnknownBackendError`` and the ``ModelError`` family."""
    from engine.backends.compiled.onnx_runtime import ONNXRuntime

    request.dtype_of("onnxruntime", ("float32",))
    with _needing("onnxruntime"):
        runtime = ONNXRuntime(request.threads)
    return CompiledBackend(open_export(request), runtime, _settings(request))


def open_export(request: BackendRequest) -> ExportDirectory:
    """Open an export, or the cached export of a model directory. Raises the ``ModelError`` family."""
    root = request.root
    if not (root / MANIFEST).is_file():
        return cached_export(root, _cache(request), ExportSettings(adapter=request.adapter))
    export = ExportDirectory.open(root)
    names = [adapter.name for adapter in export.manifest.adapters]
    if request.adapter is not None and request.adapter not in names:
        raise ExportMismatchError(
            "the export has another adapter",
            path=root,
            expected=request.adapter,
            found=", ".join(names) or "none",
        )
    if export.manifest.dtype != "float32":
        raise ExportMismatchError(
            "the export has weights of another type than this backend takes",
            path=root / MANIFEST,
            expected="float32",
            found=export.manifest.dtype,
        )
    return export


def _cache(request: BackendRequest) -> Path:
    return request.cache or default_cache_dir()


def _settings(request: BackendRequest) -> CompiledSettings:
    return CompiledSettings() if request.buckets is None else CompiledSettings(buckets=request.buckets)


@contextmanager
def _needing(package: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise UnknownBackendError(f"backend {package} needs the package {package}: {error}") from error
