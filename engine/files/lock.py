"""A lock between processes, on a file, whoever shares the volume."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

POLL_SECONDS = 0.2


class LockFileError(Exception):
    """The file of a lock cannot be made, or its file system knows no locks."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"{path}: {error}")
        self.path = path


class LockHeldError(Exception):
    """Another process held the lock for longer than was to be waited; ``holder`` is what it wrote of itself."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path} is held by {holder}")
        self.path = path
        self.holder = holder


@contextlib.contextmanager
def file_lock(
    path: Path, *, waiting: Callable[[str], object] = lambda holder: None, patience: float = math.inf
) -> Iterator[None]:
    """Hold an exclusive lock; ``waiting`` is told once by whom it is held, if it is.

    The kernel holds it for the process, so that of a crashed one is free; the file stays, and means nothing by itself.
    On a volume of several machines the file system must support flock (NFS 4, CephFS and EFS do). Raises
    ``LockHeldError`` after ``patience`` seconds and ``LockFileError``.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise LockFileError(path, error) from error
    try:
        until = time.monotonic() + patience
        told = False
        while not _taken(path, handle):
            holder = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
            if not told:
                waiting(holder)
                told = True
            if time.monotonic() >= until:
                raise LockHeldError(path, holder)
            time.sleep(POLL_SECONDS)
        # Only those who wait read it; on a full disk they wait for "another process".
        with contextlib.suppress(OSError):
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {os.uname().nodename}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def _taken(path: Path, handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise LockFileError(path, error) from error
    return True
