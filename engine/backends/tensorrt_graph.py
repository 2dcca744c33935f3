"""The UNet's ONNX graph: from an export, or exported now from a model directory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from engine.backends.build_lock import build_lock
from engine.backends.tensorrt_errors import GraphRefusedError
from engine.models.layout import ModelLayout
from engine.models.weights import hash_files

Report = Callable[[str], None]
Exporter = Callable[[Path, Path, str | None, str, Report], object]
"""Exports (model directory, folder to make, adapter, dtype, report)."""

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetGraph:
    """An ONNX file with the SHA-256 (hex) of itself and of the file of its weights, where that is another."""

    path: Path
    graph: str
    weights: str | None
    dtype: str


def open_graph(folder: Path) -> UNetGraph:
    """Read the UNet's entry of an export's ``manifest.json``. Raises ``GraphRefusedError``.

    The digests are the manifest's: the ONNX file itself is not read where its engine is already built.
    """
    path = folder / MANIFEST
    try:
        manifest: Any = msgspec.json.decode(path.read_bytes())
        entry = manifest["graphs"]["unet"]
        data = entry.get("data")
        found = UNetGraph(
            path=folder / str(entry["onnx"]["file"]),
            graph=str(entry["onnx"]["sha256"]),
            weights=None if data is None else str(data["sha256"]),
            dtype=str(manifest["dtype"]),
        )
    except (OSError, msgspec.MsgspecError, KeyError, TypeError, AttributeError) as error:
        raise GraphRefusedError("not an export with a UNet", path=path, found=repr(error)) from error
    if not found.path.is_file():
        raise GraphRefusedError("the UNet's graph is missing", path=found.path)
    return found


def graph_of(
    root: Path,
    exports: Path,
    *,
    adapter: str | None,
    dtype: str,
    report: Report,
    export: Exporter | None = None,
) -> UNetGraph:
    """Return the graph of a model directory, exported into ``exports`` unless that was done before.

    Its name holds the hash of the UNet's files, so other weights make another export. Raises the ``ModelError``
    and ``TensorRTError`` families.
    """
    layout = ModelLayout.open(root)
    files = [root / "unet" / "config.json", *layout.weights("unet", "diffusion_pytorch_model")]
    folder = exports / f"{root.resolve().name}-{hash_files(root, files)[:16]}-{dtype}"
    if not (folder / MANIFEST).exists():
        exports.mkdir(parents=True, exist_ok=True)
        with build_lock(exports, waiting=lambda holder: report(f"waiting for {holder}, which exports")):
            if not (folder / MANIFEST).exists():
                report(f"exporting {root} to {folder}")
                (export or _export)(root, folder, adapter, dtype, report)
    return open_graph(folder)


def _export(root: Path, folder: Path, adapter: str | None, dtype: str, report: Report) -> None:
    from engine.export.writer import (  # type: ignore[import-not-found, unused-ignore]
        ExportSettings,
        export_model,
    )

    export_model(root, folder, ExportSettings(adapter=adapter, dtype=dtype), report)
