"""A reference's identity: the SHA-256 of the uploaded bytes."""

from __future__ import annotations

import asyncio
import hashlib
import re
from concurrent.futures import ThreadPoolExecutor

from server.references.errors import InvalidDigest

_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_INLINE_BYTES = 256 * 1024
"""Up to here hashing, at 1 ms a MB or less, costs the event loop about as much as handing it to a thread."""


def digest_of(data: bytes) -> str:
    """Return the SHA-256 of ``data`` in 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def parse_digest(text: str) -> str:
    """Return ``text`` if it is a digest. Raises ``InvalidDigest``."""
    if _DIGEST.fullmatch(text):
        return text
    if len(text) != 64:
        raise InvalidDigest(f"has {len(text)} characters")
    raise InvalidDigest("has characters other than 0-9 and a-f")


class Hasher:
    """Hashes large uploads in a thread of its own, so that a hit never waits behind pictures that are
    decoded.

    ``hashlib`` releases the GIL. What waits is bounded by admission.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="limner-hash")

    async def digest(self, data: bytes) -> str:
        """Return the digest of ``data``."""
        if len(data) <= _INLINE_BYTES:
            return digest_of(data)
        return await asyncio.get_running_loop().run_in_executor(self._thread, digest_of, data)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)
