"""One build at a time in a folder, whoever shares the volume."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def build_lock(folder: Path, *, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold the folder's lock; ``waiting`` is told by whom it is held, if it is.

    The kernel holds it for the process, so that of a crashed one is free; the file stays, and means nothing by itself.
    On a volume of several machines the file system must support flock (NFS 4, CephFS and EFS do).
    """
    path = folder / "build.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting(os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {os.uname().nodename}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
