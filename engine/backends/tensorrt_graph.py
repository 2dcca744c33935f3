"""The UNet's ONNX graph, from an export: of a directory that holds one, or of a model, from the cache of exports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.export.cache import cached_export
from engine.export.directory import ExportDirectory
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

    Raises the ``ModelError`` family.
    """
    if (root / MANIFEST).is_file():
        return ExportDirectory.open(root)
    return cached_export(root, cache, settings)


def unet_graph(export: ExportDirectory) -> UNetGraph:
    """Return what the builder needs to know of an export's UNet."""
    path, entry = export.graph("unet")
    return UNetGraph(
        path=path,
        graph=entry.onnx.sha256,
        weights=None if entry.data is None else entry.data.sha256,
        dtype=export.manifest.dtype,
    )
