"""The UNet's ONNX graph in an export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.export.directory import ExportDirectory


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetGraph:
    """An ONNX file with the SHA-256 (hex) of itself and of the file of its weights, where that is another."""

    path: Path
    graph: str
    weights: str | None
    dtype: str


def unet_graph(export: ExportDirectory) -> UNetGraph:
    """Return what the builder needs to know of an export's UNet."""
    path, entry = export.graph("unet")
    return UNetGraph(
        path=path,
        graph=entry.onnx.sha256,
        weights=None if entry.data is None else entry.data.sha256,
        dtype=export.manifest.dtype,
    )
