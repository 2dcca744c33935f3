"""Frames on a blocking stream socket: the engine's end."""

from __future__ import annotations

import socket

from .framing import HEADER_BYTES, Frame, ProtocolError, Tensor, decode_payload, encode_frame, parse_header
from .messages import Message


def read_frame(connection: socket.socket) -> Frame | None:
    """Block until a frame is there and return it; None when the peer closed between two frames.

    Raises ``ProtocolError`` when it closed inside one or sent something else, and ``OSError``.
    """
    header = bytearray(HEADER_BYTES)
    if not _fill(connection, header, may_end=True):
        return None
    lengths = parse_header(header)
    payload = bytearray(lengths.payload)
    _fill(connection, payload, may_end=False)
    return decode_payload(lengths, payload)


def write_frame(connection: socket.socket, message: Message, tensor: Tensor | None = None) -> None:
    """Block until a frame is handed to the kernel. Raises ``ProtocolError`` and ``OSError``."""
    for buffer in encode_frame(message, tensor):
        connection.sendall(buffer)


def _fill(connection: socket.socket, buffer: bytearray, *, may_end: bool) -> bool:
    view = memoryview(buffer)
    while view.nbytes:
        count = connection.recv_into(view)
        if count == 0:
            if may_end and view.nbytes == len(buffer):
                return False
            raise ProtocolError(f"the peer closed {view.nbytes} bytes before the end of a frame")
        view = view[count:]
    return True
