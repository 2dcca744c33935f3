"""The export to serve from: what a directory holds, or what the cache holds of a model directory."""

from __future__ import annotations

from pathlib import Path

from engine.export.cache import cached_export
from engine.export.directory import ExportDirectory
from engine.export.errors import ExportError, ExportMismatchError
from engine.export.manifest import MANIFEST
from engine.export.settings import ExportSettings


def obtain_export(root: Path, cache: Path | None, settings: ExportSettings) -> ExportDirectory:
    """Open an export, or that of a model directory, which is exported into the cache the first time.

    Raises the ``ModelError`` family, ``ExportMismatchError`` for an export of other settings.
    """
    if not (root / MANIFEST).is_file():
        if cache is None:
            raise ExportError("a model directory can be compiled only where there is a cache", path=root)
        return cached_export(root, cache, settings)
    export = ExportDirectory.open(root)
    default = next((adapter.name for adapter in export.manifest.adapters), "none")
    if settings.adapter not in (None, default):
        raise ExportMismatchError(
            "the export has another default adapter", path=root, expected=settings.adapter, found=default
        )
    if settings.loras:
        raise ExportMismatchError(
            "LoRAs are fused when a model is exported; this is an export",
            path=root,
            expected="a model directory",
            found=", ".join(str(lora.path) for lora in settings.loras),
        )
    if settings.dtype != export.manifest.dtype:
        raise ExportMismatchError(
            "the export has weights of another type",
            path=root / MANIFEST,
            expected=settings.dtype,
            found=export.manifest.dtype,
        )
    return export
