"""A lock between processes, on a file."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.export.errors import ExportLockError, ExportWriteError

POLL_SECONDS = 0.2


@contextmanager
def file_lock(path: Path, *, patience: float, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold an exclusive lock; ``waiting`` is called once if another process has it.

    The system releases it with the process, however that ends. Raises ``ExportLockError`` after ``patience`` seconds
    and ``ExportWriteError`` where the file cannot be made.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ExportWriteError("lock cannot be made", path=path, found=str(error)) from error
    try:
        until = time.monotonic() + patience
        told = False
        while not _taken(handle):
            if not told:
                waiting()
                told = True
            if time.monotonic() >= until:
                raise ExportLockError(
                    "another process holds the lock", path=path, expected=f"its end within {patience:g} s"
                )
            time.sleep(POLL_SECONDS)
        yield
    finally:
        os.close(handle)


def _taken(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
