"""A file in memory that is given back once it was read."""

from __future__ import annotations

import mmap
import os
from pathlib import Path


class Mapped:
    """A file in memory, read page by page as it is used; nothing is ever written to it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        # A private mapping: OpenVINO's tensors want memory that could be written to.
        self.memory = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_COPY)

    def release(self) -> None:
        """Give all pages back, the first time that this is called; what is read again is read alone.

        With the file in the system's cache, a page that is touched would bring its neighbours back with it: the biases
        that every call reads would keep the weights between them resident.
        """
        if self._file.closed:
            return
        self.memory.madvise(mmap.MADV_DONTNEED)
        self.memory.madvise(mmap.MADV_RANDOM)
        # The file that is mapped, not whatever has its name by now.
        os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        self._file.close()
