"""The mailbox: how messages reach the loop's thread."""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import NamedTuple, Protocol

from engine.protocol.framing import Frame


class Mail(NamedTuple):
    """A message, and the moment on the engine's clock at which it arrived: the loop may be busy for long after."""

    frame: Frame
    arrived: float


class Inbox(Protocol):
    """Where the loop takes its messages from."""

    def drain(self, patience: float) -> list[Mail]:
        """Return what has come; wait up to ``patience`` seconds for a first message if nothing has.

        Raises ``ProtocolError`` once the server has sent what is no message, and whatever else ended the reader.
        """

    @property
    def closed(self) -> bool:
        """Whether nothing will ever come again."""

    @property
    def waiting(self) -> bool:
        """Whether ``drain`` would find anything, its end included."""

    def tell(self, listener: Callable[[], None]) -> None:
        """Have ``listener`` called whenever something has come, by the thread that brought it."""


class Mailbox:
    """A queue from the reader thread to the loop."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Mail | Exception | None] = SimpleQueue()
        self._closed = False
        self._listener: Callable[[], None] | None = None

    @property
    def closed(self) -> bool:
        """Whether the server is gone and everything that it sent was taken out."""
        return self._closed

    @property
    def waiting(self) -> bool:
        """Whether ``drain`` would find anything, its end included."""
        return not self._queue.empty()

    def tell(self, listener: Callable[[], None]) -> None:
        """Have ``listener`` called whenever something has come; see ``Inbox``."""
        self._listener = listener

    def put(self, frame: Frame, arrived: float) -> None:
        """Add a message; any thread may."""
        self._put(Mail(frame, arrived))

    def close(self, error: Exception | None = None) -> None:
        """Say that the server is gone, or what went wrong; any thread may."""
        self._put(error)

    def _put(self, what: Mail | Exception | None) -> None:
        self._queue.put(what)
        if self._listener is not None:
            self._listener()

    def drain(self, patience: float) -> list[Mail]:
        """Return what has come; see ``Inbox``."""
        mails: list[Mail] = []
        try:
            mail = self._queue.get(timeout=patience) if patience > 0 else self._queue.get_nowait()
            while isinstance(mail, Mail):
                mails.append(mail)
                mail = self._queue.get_nowait()
        except Empty:
            return mails
        if mail is not None:
            raise mail
        self._closed = True
        return mails
