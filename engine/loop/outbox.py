"""The outbox: how messages leave the loop's thread without ever making it wait."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

import structlog

from engine.protocol.framing import Buffer, Tensor, encode_frame
from engine.protocol.messages import Message, PreviewReady, Step, TickReport

from .errors import ServerStalledError

log = structlog.get_logger()

DROPPABLE = (TickReport, Step, PreviewReady)
"""What jobs can do without. A later step or preview makes up for a lost one; the tick of a lost report is missing from
the metrics."""

SOFT_BYTES = 32 << 20
"""Beyond this much unsent, droppable messages are dropped."""

HARD_BYTES = 1 << 30
"""Beyond this much unsent, the server counts as gone."""


class Emit(Protocol):
    """Where the loop sends its messages."""

    def __call__(self, message: Message, tensor: Tensor | None = None) -> None:
        """Send a message and the tensor beside it; must not wait."""


class Outbox:
    """A bounded queue from the loop to a writer thread.

    A server that reads slowly costs the loop nothing: first progress is dropped, and logged; when even pictures
    pile up the next ``send`` raises ``ServerStalledError``.
    """

    def __init__(
        self, write: Callable[[Buffer], None], *, soft_bytes: int = SOFT_BYTES, hard_bytes: int = HARD_BYTES
    ) -> None:
        self._write = write
        self._soft = soft_bytes
        self._hard = hard_bytes
        self._changed = threading.Condition()
        self._queue: deque[list[Buffer]] = deque()
        self._bytes = 0
        self._closing = False
        self._broken = False
        self.dropped = 0
        """Messages dropped since the start."""
        self._thread = threading.Thread(target=self._drain, name="writer", daemon=True)

    def start(self) -> None:
        """Start the writer thread."""
        self._thread.start()

    def send(self, message: Message, tensor: Tensor | None = None) -> None:
        """Queue a message. Raises ``ServerStalledError``."""
        frame = encode_frame(message, tensor)
        size = sum(len(buffer) for buffer in frame)
        with self._changed:
            if self._broken:
                return  # the reader sees the same end and stops the loop
            if self._bytes + size > self._hard:
                raise ServerStalledError(f"{self._bytes} bytes wait for a server that does not read")
            if self._bytes > self._soft and isinstance(message, DROPPABLE):
                self.dropped += 1
                if self.dropped.bit_count() == 1:
                    log.warning("progress dropped, the server reads slowly", dropped=self.dropped)
                return
            self._queue.append(frame)
            self._bytes += size
            self._changed.notify()

    def close(self, timeout: float) -> None:
        """Write what is queued, for at most ``timeout`` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)

    def _drain(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing)
                if not self._queue:
                    return
                frame = self._queue.popleft()
            try:
                for buffer in frame:
                    self._write(buffer)
            except OSError as error:
                log.warning("the server is gone", error=str(error))
                with self._changed:
                    self._broken = True
                    self._queue.clear()
                return
            with self._changed:
                self._bytes -= sum(len(buffer) for buffer in frame)
