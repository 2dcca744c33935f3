"""Memory that the process has freed, back to the operating system."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable


def give_back() -> None:
    """Collect what only cycles hold, and return free pages of the heap to the system.

    After loading, those are the float weights that packing copied; after warm-up, what larger buckets needed. glibc
    would keep both for ever, since later allocations lie above them.
    """
    gc.collect()
    trim()


def trim() -> None:
    """Return free pages of the heap to the system; nothing where libc has no call for it."""
    call = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if call is not None:
        call(0)


class IdleTrimmer:
    """Return what serving needed once nothing is left to do, at most once in `every` seconds.

    Trimming takes milliseconds, and the pages have to be provided again when work comes back: not between one
    picture and the next.
    """

    def __init__(self, clock: Callable[[], float], *, every: float = 10.0) -> None:
        self._clock = clock
        self._every = every
        self._due = clock() + every
        self._worked = False

    def worked(self) -> None:
        """Note that something was computed."""
        self._worked = True

    def idle(self) -> None:
        """Give memory back, if anything was computed since the last time and that is long enough ago."""
        if self._worked and self._clock() >= self._due:
            trim()
            self._worked = False
            self._due = self._clock() + self._every
