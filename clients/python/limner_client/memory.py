"""The bytes of references that were sent, kept for a while so that they can be uploaded again."""

import threading
from collections import OrderedDict


class ReferenceMemory:
    """Keeps pictures by digest, the least recently used one leaving first. Safe to share between threads."""

    def __init__(self, max_bytes: int = 64 * 2**20) -> None:
        self.max_bytes = max_bytes
        self._pictures: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    @property
    def size_bytes(self) -> int:
        """Give the bytes that are kept now."""
        return self._size

    def keep(self, digest: str, data: bytes) -> None:
        """Remember a picture, unless it alone is over the bound."""
        if len(data) > self.max_bytes:
            return
        with self._lock:
            self._drop(digest)
            self._pictures[digest] = data
            self._size += len(data)
            while self._size > self.max_bytes:
                self._drop(next(iter(self._pictures)))

    def find(self, digest: str) -> bytes | None:
        """Give a picture's bytes, or None."""
        with self._lock:
            data = self._pictures.get(digest)
            if data is not None:
                self._pictures.move_to_end(digest)
            return data

    def forget(self, digest: str) -> None:
        """Forget a picture, if it is there."""
        with self._lock:
            self._drop(digest)

    def _drop(self, digest: str) -> None:
        data = self._pictures.pop(digest, None)
        self._size -= len(data or b"")
