"""The UNet's ONNX graph, from an export: of a directory that holds one, or of a model, from the cache of exports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.export.cache import cached_export
from engine.export.directory import ExportDirectory
from engine.export.errors import ExportMismatchError
from engine.export.manifest import MANIFEST
from engine.export.settings import ExportSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetGraph:
    """An ONNX file with the SHA-256 (hex) of itself and of the file of its weights, where that is another."""

    path: Path
    graph: str
    weights: str | None
    dtype: str


def export_of(root: Path, cache: Path, settings: ExportSettings) -> ExportDirectory:
    """Open an export, or that of a model directory, which is exported into the cache the first time.

    Raises the ``ModelError`` family, ``ExportMismatchError`` for an export of other settings.
    """
    if not (root / MANIFEST).is_file():
        return cached_export(root, cache, settings)
    export = ExportDirectory.open(root)
    manifest = export.manifest
    default = next((adapter.name for adapter in manifest.adapters), "none")
    if settings.adapter not in (None, default):
        raise ExportMismatchError(
            "the export has another default adapter", path=root, expected=settings.adapter, found=default
        )
    if settings.dtype != manifest.dtype:
        raise ExportMismatchError(
            "the export has weights of another type",
            path=root / MANIFEST,
            expected=settings.dtype,
            found=manifest.dtype,
        )
    if settings.loras:
        raise ExportMismatchError(
            "LoRAs are fused when a model is exported; this is an export",
            path=root,
            expected="a model directory",
            found=", ".join(str(lora.path) for lora in settings.loras),
        )
    return export


def unet_graph(export: ExportDirectory) -> UNetGraph:
    """Return what the builder needs to know of an export's UNet."""
    path, entry = export.graph("unet")
    return UNetGraph(
        path=path,
        graph=entry.onnx.sha256,
        weights=None if entry.data is None else entry.data.sha256,
        dtype=export.manifest.dtype,
    )
