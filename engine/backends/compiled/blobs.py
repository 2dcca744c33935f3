"""Compiled graphs on the disk: checked before they are read, and never seen half-written."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable
from pathlib import Path

import structlog

from engine.files.replacement import replacing

log = structlog.get_logger()

MAGIC = b"limner-blob-1\n"

HEADER = 4096
"""Bytes before the content: magic, digest, zeros up to a page, so that the content may be mapped."""


class BlobCache:
    """A folder of files ``<key>.blob``: magic, the SHA-256 of the content, zeros up to ``HEADER``, the content.

    A file that is damaged counts as absent and is removed, and a folder that cannot be written to only costs time: a
    graph is compiled again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, parts: Iterable[object]) -> Path:
        """Return the file for a key made of these parts, each of which decides what is compiled."""
        key = hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()
        return self.folder / f"{key[:32]}.blob"

    def valid(self, path: Path) -> bool:
        """Whether the file holds a whole blob; its content begins at ``HEADER``."""
        try:
            with path.open("rb") as file:
                header = file.read(HEADER)
                found = hashlib.file_digest(file, "sha256").digest()
        except FileNotFoundError:
            return False
        except OSError as error:
            log.warning("compiled graph cannot be read", path=str(path), error=str(error))
            return False
        if header == _header(found):
            return True
        log.warning("compiled graph is damaged and will be compiled again", path=str(path))
        self.discard(path)
        return False

    def discard(self, path: Path) -> None:
        """Remove a file, if that is possible."""
        with contextlib.suppress(OSError):
            path.unlink()

    def write(self, path: Path, content: bytes | memoryview) -> None:
        """Keep a blob, if that is possible."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as draft, draft.open("wb") as file:
                file.write(_header(hashlib.sha256(content).digest()))
                file.write(content)
        except OSError as error:
            log.warning(
                "compiled graph cannot be kept, every start compiles it", path=str(path), error=str(error)
            )


def _header(digest: bytes) -> bytes:
    return (MAGIC + digest).ljust(HEADER, b"\0")
