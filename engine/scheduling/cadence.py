"""How long a tick really takes: from the end of the one before, while the engine goes straight on."""

from __future__ import annotations


class Cadence:
    """Turns the ends of ticks into the seconds that each is to be reckoned with.

    Encoders and mail between two ticks delay the second one, so a full engine that reckoned with the ticks alone would
    promise what it cannot keep. What the forecast adds for each image by itself (``Policy.finish_seconds``) is left
    out, and so is all time without work.
    """

    def __init__(self) -> None:
        self._ended: float | None = None
        self._left_out = 0.0

    def rest(self) -> None:
        """Note that the engine does not go straight on: it has nothing to do, or a tick failed."""
        self._ended = None

    def leave_out(self, seconds: float) -> None:
        """Note time since the last tick that is reckoned with elsewhere."""
        self._left_out += seconds

    def of(self, began: float, ended: float) -> float:
        """Return the seconds of a tick; the next one counts from its end."""
        since = began if self._ended is None else self._ended + self._left_out
        self._ended, self._left_out = ended, 0.0
        return ended - since
