"""Exports that are made when a model is first served, and found again afterwards."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import structlog

from engine.export.digest import digest_file
from engine.export.directory import ExportDirectory
from engine.export.errors import DamagedExportError, ExportError, ExportLockError, ExportWriteError
from engine.export.manifest import FORMAT
from engine.export.settings import PACKAGES, ExportSettings
from engine.export.source import source_files
from engine.export.spawn import export_in_child
from engine.files.digest import sha256_of
from engine.files.lock import LockFileError, LockHeldError, file_lock
from engine.files.replacement import leftovers

log = structlog.get_logger()

REVISION = 2
"""Raised when this code writes another export of the same model."""

PATIENCE_SECONDS = 3600.0
"""How long a start waits for another's export; the largest models take minutes."""

Make = Callable[[Path, Path, ExportSettings], object]


def cached_export(
    root: Path, cache: Path, settings: ExportSettings, *, make: Make = export_in_child
) -> ExportDirectory:
    """Return the export of a model directory, made now if the cache has none.

    An export is found again only when every source file, every version and every setting is the same; one that was
    damaged since is made again. Several processes may ask at once: one exports, the others wait. Raises the
    ``ModelError`` family.
    """
    place = cache / "exports" / export_key(root, settings)
    found = _open(place)
    if found is not None:
        return found
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(place.parent, error) from error
    lock = place.with_name(f"{place.name}.lock")

    def waiting(holder: str) -> None:
        log.info("waiting for another process that exports this model", model=str(root), holder=holder)

    try:
        with file_lock(lock, patience=PATIENCE_SECONDS, waiting=waiting):
            found = _open(place)
            if found is None:
                _clear(place)
                log.info(
                    "exporting the model, which only its first start does", model=str(root), to=str(place)
                )
                make(root, place, settings)
                found = ExportDirectory.open(place)
            return found
    except LockHeldError as error:
        raise ExportLockError(
            "another process holds the lock",
            path=lock,
            expected=f"its end within {PATIENCE_SECONDS:g} s",
            found=error.holder,
        ) from error
    except (LockFileError, ExportWriteError) as error:
        raise _unwritable(place.parent, error) from error


def export_key(root: Path, settings: ExportSettings) -> str:
    """Return the name of an export's folder: the model's, and a digest of all that the export depends on."""
    name = root.resolve().name
    depends = {
        "format": FORMAT,
        "revision": REVISION,
        "name": name,
        "dtype": settings.dtype,
        "size": settings.size,
        "opset": settings.chosen_opset,
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
        "source": [
            (file.file, file.sha256) for file in (digest_file(root, path) for path in source_files(root))
        ],
        "adapter": settings.adapter,
        "loras": [(sha256_of(lora.path), lora.scale) for lora in settings.loras],
    }
    digest = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)[:64]}-{settings.dtype}-{digest[:20]}"


def _open(place: Path) -> ExportDirectory | None:
    if not place.is_dir():
        return None
    try:
        return ExportDirectory.open(place)
    except ExportError as error:
        log.warning("export in the cache cannot be used and will be made again", reason=str(error))
        return None


def _clear(place: Path) -> None:
    """Remove a damaged export, and what was left by exports that were killed; the lock is held."""
    for path in (place, *leftovers(place.parent, place.name)):
        if path.is_dir():
            try:
                shutil.rmtree(path)
            except OSError as error:
                raise DamagedExportError(
                    "a damaged export cannot be removed", path=path, found=str(error)
                ) from error


def _unwritable(folder: Path, error: Exception) -> ExportWriteError:
    return ExportWriteError(
        "the export cache cannot be written to; set cache_dir (--cache-dir, LIMNER_ENGINE_CACHE_DIR, "
        "or XDG_CACHE_HOME) to a folder that can, or serve an export that was made before (limner-engine export)",
        path=folder,
        expected="a writable folder with room for the model's weights",
        found=str(error),
    )
