"""The mailbox: how messages reach the loop's thread."""

from __future__ import annotations

from queue import Empty, SimpleQueue
from typing import Protocol

from engine.protocol.framing import Frame, ProtocolError


class Inbox(Protocol):
    """Where the loop takes its messages from."""

    def drain(self, patience: float) -> list[Frame]:
        """Return what has come; wait up to ``patience`` seconds for a first message if nothing has.

        Raises ``ProtocolError`` once the server has sent what is no message.
        """

    @property
    def closed(self) -> bool:
        """Whether nothing will ever come again."""


class Mailbox:
    """A queue from the reader thread to the loop."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Frame | ProtocolError | None] = SimpleQueue()
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the server is gone and everything that it sent was taken out."""
        return self._closed

    def put(self, frame: Frame) -> None:
        """Add a message; any thread may."""
        self._queue.put(frame)

    def close(self, error: ProtocolError | None = None) -> None:
        """Say that the server is gone, or what it did; any thread may."""
        self._queue.put(error)

    def drain(self, patience: float) -> list[Frame]:
        """Return what has come; see ``Inbox``."""
        frames: list[Frame] = []
        try:
            frame = self._queue.get(timeout=patience) if patience > 0 else self._queue.get_nowait()
            while isinstance(frame, Frame):
                frames.append(frame)
                frame = self._queue.get_nowait()
            if frame is not None:
                raise frame
            self._closed = True
        except Empty:
            pass
        return frames
