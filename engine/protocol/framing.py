"""Frames: how a message, and the tensor beside it, lie on the socket.

``header (20 bytes) | body (msgpack) | tensor (raw, C order, little endian)``

The header is ``magic "LMNR", version u16, zero u16, body bytes u32, tensor bytes u64``, little endian. The
body is ``Body``: the message, tagged with its type's name, and the tensor's dtype and shape. Every header carries
the version, so two processes of different releases part at the first frame instead of misreading a later one.

All functions here are pure; a caller with asyncio reads ``HEADER_BYTES``, calls ``parse_header``, reads
``Lengths.payload`` bytes and calls ``decode_payload``. :mod:`engine.protocol.channel` does it on blocking
sockets.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from .messages import AnyMessage, Message

PROTOCOL_VERSION = 2
"""Raised by one whenever a message changes in a way that the other side could misread."""

MAGIC = b"LMNR"
_HEADER = struct.Struct("<4sHHIQ")
HEADER_BYTES = _HEADER.size

MAX_BODY_BYTES = 4 << 20
MAX_TENSOR_BYTES = 256 << 20
"""Room for one 8,192 x 8,192 picture, the largest tensor that any message carries."""

DTYPES = ("uint8", "float16", "float32")

Tensor = NDArray[Any]
Buffer = bytes | bytearray | memoryview


class ProtocolError(Exception):
    """The peer sent what this protocol does not allow, or speaks another version. The connection is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One message, and the tensor beside it if it carries one (read-only, a view of the received bytes)."""

    message: Message
    tensor: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """What a header announces, in bytes."""

    body: int
    tensor: int

    @property
    def payload(self) -> int:
        """Bytes that follow the header."""
        return self.body + self.tensor


class Body(msgspec.Struct, frozen=True, array_like=True):
    """The msgpack part of a frame. ``dtype`` is empty when no tensor follows."""

    message: AnyMessage
    dtype: str = ""
    shape: tuple[int, ...] = ()


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Body)


def encode_frame(message: Message, tensor: Tensor | None = None) -> list[Buffer]:
    """Return the buffers of one frame, to be written in order; the tensor's is a view where it is contiguous.

    Raises ``ProtocolError`` when the message or the tensor is one that the peer would refuse.
    """
    if tensor is None:
        body, raw = _encoder.encode(Body(message)), memoryview(b"")  # type: ignore[arg-type]
    else:
        if tensor.dtype.name not in DTYPES:
            raise ProtocolError(f"tensors are {', '.join(DTYPES)}, not {tensor.dtype.name}")
        tensor = np.ascontiguousarray(tensor)
        body = _encoder.encode(Body(message, tensor.dtype.name, tensor.shape))  # type: ignore[arg-type]
        raw = tensor.reshape(-1).view(np.uint8).data if tensor.size else memoryview(b"")
    _check_lengths(len(body), raw.nbytes)
    head = _HEADER.pack(MAGIC, PROTOCOL_VERSION, 0, len(body), raw.nbytes) + body
    return [head, raw] if raw.nbytes else [head]


def parse_header(header: Buffer) -> Lengths:
    """Read the ``HEADER_BYTES`` that begin a frame. Raises ``ProtocolError``."""
    if len(header) != HEADER_BYTES:
        raise ProtocolError(f"a header has {HEADER_BYTES} bytes, not {len(header)}")
    magic, version, zero, body, tensor = _HEADER.unpack(header)
    if magic != MAGIC or zero != 0:
        raise ProtocolError(f"not a frame of this protocol: it begins with {bytes(magic)!r}")
    if version != PROTOCOL_VERSION:
        raise ProtocolError(f"the peer speaks version {version} of the protocol, this one {PROTOCOL_VERSION}")
    _check_lengths(body, tensor)
    return Lengths(body=body, tensor=tensor)


def decode_payload(lengths: Lengths, payload: Buffer) -> Frame:
    """Read the ``lengths.payload`` bytes after a header. Raises ``ProtocolError``."""
    view = memoryview(payload)
    if view.nbytes != lengths.payload:
        raise ProtocolError(f"{lengths.payload} bytes announced, {view.nbytes} came")
    try:
        body = _decoder.decode(view[: lengths.body])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ProtocolError(f"not a message of this protocol: {error}") from error
    if not body.dtype:
        if lengths.tensor:
            raise ProtocolError(f"{lengths.tensor} bytes of a tensor that the message does not describe")
        return Frame(message=body.message)
    if body.dtype not in DTYPES or any(side < 0 for side in body.shape):
        raise ProtocolError(f"no such tensor: {body.dtype} {body.shape}")
    dtype = np.dtype(body.dtype)
    if prod(body.shape) * dtype.itemsize != lengths.tensor:
        raise ProtocolError(f"{lengths.tensor} bytes are no {body.dtype} {body.shape}")
    flat = np.frombuffer(view[lengths.body :], dtype=dtype)
    flat.flags.writeable = False
    return Frame(message=body.message, tensor=flat.reshape(body.shape))


def _check_lengths(body: int, tensor: int) -> None:
    if body > MAX_BODY_BYTES:
        raise ProtocolError(f"a message of {body} bytes; at most {MAX_BODY_BYTES} are allowed")
    if tensor > MAX_TENSOR_BYTES:
        raise ProtocolError(f"a tensor of {tensor} bytes; at most {MAX_TENSOR_BYTES} are allowed")
