"""How a reference is written into a store that others can write to, and read back only if nothing was changed.

A value is ``LMRF``, version, algorithm, the length of a JSON header, the header (record and shape), the tokens as
little-endian f32, and 32 bytes that authenticate all of it together with the key it was stored under. An entry that
was cut, changed, written by another release or copied from another tenant, picture, encoder or adapter is
``CorruptEntry``. Without a key the seal is a SHA-256, which finds accidents; who can write to the store can forge it.
With a key it is an HMAC.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from server.references.cache import CacheEntry, CacheKey
from server.references.record import ReferenceRecord

VERSION = 1
"""Part of the keys as well: another release's entries are not even asked for."""
_HEAD = struct.Struct("<4sBBI")
_MAGIC = b"LMRF"
_SEAL_BYTES = 32
_MAX_HEADER_BYTES = 64 * 1024
_DTYPE = np.dtype("<f4")


class CorruptEntry(ValueError):  # noqa: N818 - named for what it found
    """A stored value that is not what this server, or one with its key, wrote there."""


class _Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    record: ReferenceRecord
    shape: tuple[int, int] | None = None
    """Of the tokens; None where there are none."""


class Sealer:
    """Writes and reads values; all servers that share a store have the same ``key``, or none (empty)."""

    def __init__(self, key: bytes = b"") -> None:
        self._key = key

    def seal(self, key: CacheKey, entry: CacheEntry) -> bytes:
        """Return the value of an entry under its key."""
        tokens = np.ascontiguousarray(entry.tokens, dtype=_DTYPE)
        rows, width = tokens.shape
        header = _Header(record=entry.record, shape=(rows, width))
        return self._sealed(key, header, tokens.tobytes())

    def seal_record(self, tenant: str, digest: str, record: ReferenceRecord) -> bytes:
        """Return the value of what is known of a reference, whatever the adapter."""
        return self._sealed((tenant, digest), _Header(record=record), b"")

    def seal_deletion(self, tenant: str, digest: str) -> bytes:
        """Return what stands for a reference that was deleted; it is compared, not read."""
        return self._seal((tenant, digest, "deleted"), b"")

    def open(self, key: CacheKey, value: bytes, shape: tuple[int, int]) -> CacheEntry:
        """Return the entry with tokens of ``shape``, in memory of their own. Raises ``CorruptEntry``."""
        header, body = self._opened(key, value)
        if header.shape != shape or len(body) != shape[0] * shape[1] * _DTYPE.itemsize:
            raise CorruptEntry(f"tokens of {header.shape} in {len(body)} bytes, not {shape}")
        tokens: NDArray[np.float32] = np.frombuffer(body, _DTYPE).reshape(shape).astype(np.float32)
        if not np.isfinite(tokens).all():
            raise CorruptEntry("tokens out of the range of numbers")
        tokens.setflags(write=False)
        return CacheEntry(tokens=tokens, record=header.record)

    def open_record(self, tenant: str, digest: str, value: bytes) -> ReferenceRecord:
        """Return what is known of a reference. Raises ``CorruptEntry``."""
        header, body = self._opened((tenant, digest), value)
        if header.shape is not None or body:
            raise CorruptEntry("tokens in a record")
        return header.record

    def _sealed(self, key: Sequence[str], header: _Header, body: bytes) -> bytes:
        text = msgspec.json.encode(header)
        head = _HEAD.pack(_MAGIC, VERSION, bool(self._key), len(text))
        content = b"".join((head, text, body))
        return content + self._seal(key, content)

    def _opened(self, key: Sequence[str], value: bytes) -> tuple[_Header, bytes]:
        if len(value) < _HEAD.size + _SEAL_BYTES:
            raise CorruptEntry(f"{len(value)} bytes")
        content, seal = value[:-_SEAL_BYTES], value[-_SEAL_BYTES:]
        # Nothing is read out of a value before its seal holds.
        if not hmac.compare_digest(seal, self._seal(key, content)):
            raise CorruptEntry("the seal does not fit the content and its key")
        magic, version, algorithm, length = _HEAD.unpack_from(content)
        if (magic, version, algorithm) != (_MAGIC, VERSION, bool(self._key)) or length > _MAX_HEADER_BYTES:
            raise CorruptEntry(f"head {magic!r}, version {version}, algorithm {algorithm}")
        try:
            header = msgspec.json.decode(content[_HEAD.size : _HEAD.size + length], type=_Header)
        except msgspec.DecodeError as error:
            raise CorruptEntry(f"header: {error}") from error
        if header.record.digest != key[1]:
            raise CorruptEntry("the record of another picture")
        return header, content[_HEAD.size + length :]

    def _seal(self, key: Sequence[str], content: bytes) -> bytes:
        parts = [part.encode("utf-8", "surrogatepass") for part in key]
        context = b"limner reference" + b"".join(struct.pack("<I", len(part)) + part for part in parts)
        if self._key:
            return hmac.digest(self._key, struct.pack("<I", len(context)) + context + content, "sha256")
        return hashlib.sha256(struct.pack("<I", len(context)) + context + content).digest()
