"""A file or a folder that takes its place when everything is in it: readers see the old one or the new one."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

SUFFIX = ".part"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside ``path`` to write a file to, or to make a folder at; it becomes ``path`` at the end.

    Nothing is left of it if the end is not reached; what a process leaves that is killed matches ``leftovers``. A file
    takes the place of one that is there; a folder needs it free. Raises ``OSError``.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}{SUFFIX}")
    try:
        yield draft
        # On the disk before the new name: after a crash it must not be that of an empty file.
        for part in (*draft.rglob("*"), draft):
            _flush(part)
        draft.replace(path)
        _flush(path.parent)
    finally:
        with contextlib.suppress(OSError):
            if draft.is_dir():
                shutil.rmtree(draft)
            else:
                draft.unlink(missing_ok=True)


def leftovers(folder: Path, name: str = "*") -> list[Path]:
    """Return what killed processes left of ``name``, a pattern, in a folder; the caller holds off who writes there."""
    return sorted(folder.glob(f".{name}.*{SUFFIX}"))


def _flush(path: Path) -> None:
    """Bring a file or a folder's entries to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
