"""Digests of files, and whether a directory still holds what its manifest describes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from engine.export.errors import DamagedExportError
from engine.export.manifest import FileDigest
from engine.files.digest import sha256_of


def digest_file(root: Path, path: Path) -> FileDigest:
    """Read a file and return its digest, named relative to ``root``."""
    return FileDigest(
        file=path.relative_to(root).as_posix(), bytes=path.stat().st_size, sha256=sha256_of(path)
    )


def verify_files(root: Path, files: Iterable[FileDigest]) -> None:
    """Compare files with their digests, sizes first. Raises ``DamagedExportError``."""
    files = list(files)
    for file in files:
        path = root / file.file
        if not path.is_file():
            raise DamagedExportError("file is missing", path=path, expected=f"{file.bytes} bytes")
        if (found := path.stat().st_size) != file.bytes:
            raise DamagedExportError(
                "file has another size", path=path, expected=f"{file.bytes} bytes", found=f"{found} bytes"
            )
    for file in files:
        path = root / file.file
        sha256 = sha256_of(path)
        if sha256 != file.sha256:
            raise DamagedExportError(
                "file has another content",
                path=path,
                expected=f"SHA-256 {file.sha256}",
                found=f"SHA-256 {sha256}",
            )
