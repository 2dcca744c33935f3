"""Exports for TensorRT on a machine that may lack what exporting needs."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from functools import partial
from pathlib import Path

from engine.export.cache import cached_export
from engine.export.directory import ExportDirectory
from engine.export.settings import PACKAGES, ExportSettings
from engine.export.writer import export_model


def what_exports_lack() -> str | None:
    """Name the packages that an export needs and this machine lacks; None where all are there."""
    missing = []
    for package in PACKAGES:
        try:
            # Not only importable: the manifest records the versions.
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            missing.append(package)
    return f"packages {', '.join(missing)}" if missing else None


def exported(
    root: Path, cache: Path, adapter: str | None, dtype: str, report: Callable[[str], object]
) -> ExportDirectory:
    """Export a model directory into a cache, in this process, unless that was done before."""
    settings = ExportSettings(adapter=adapter, dtype=dtype)
    return cached_export(root, cache, settings, make=partial(export_model, progress=report))
