"""Frames on the engine's socket, for the event loop: the server's end of :mod:`engine.protocol.framing`."""

from __future__ import annotations

import asyncio
import socket

from engine.protocol.framing import HEADER_BYTES, Frame, Tensor, decode_payload, encode_frame, parse_header
from engine.protocol.messages import Message

READ_BUFFER_BYTES = 1 << 20


class Connection:
    """One engine's socket. Sending never waits: what is in flight is bounded by admission, not here."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, end: socket.socket) -> Connection:
        """Take over a connected stream socket."""
        end.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=end, limit=READ_BUFFER_BYTES)
        return cls(reader, writer)

    def send(self, message: Message, tensor: Tensor | None = None) -> None:
        """Queue a message; one to a closed connection is lost, and the reader hears of the end.

        Raises ``ProtocolError`` for a message that the engine would refuse.
        """
        frame = encode_frame(message, tensor)
        if not self._writer.is_closing():
            self._writer.writelines(frame)

    async def receive(self) -> Frame | None:
        """Return the next frame; None when the engine closed, inside a frame or between two.

        Raises ``ProtocolError`` when it sent something else.
        """
        try:
            lengths = parse_header(await self._reader.readexactly(HEADER_BYTES))
            return decode_payload(lengths, await self._reader.readexactly(lengths.payload))
        except (asyncio.IncompleteReadError, OSError):
            return None

    def close(self) -> None:
        """Close the socket; what is queued may be lost."""
        self._writer.transport.abort()
