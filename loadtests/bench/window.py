"""The window of a closed loop that is counted: the part in which every caller waits for an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """`images` counted answers of a loop whose `callers` ask again as soon as they are answered.

    Each caller's first answer comes before the window, while the loop fills; its last question is answered after the
    window, while the loop drains.
    """

    callers: int
    images: int

    @property
    def asked(self) -> int:
        """Return how many images are asked for, so that the last question is asked as the window closes."""
        return self.images + 2 * self.callers

    def counted(self, answers: Sequence[float]) -> Sequence[float]:
        """Return what is counted of what all answers gave, in the order in which they came."""
        return answers[self.callers : self.callers + self.images]

    def seconds(self, ends: Sequence[float]) -> float:
        """Return the seconds in which the counted answers came; `ends` are the moments of all, in order."""
        return ends[self.callers + self.images - 1] - ends[self.callers - 1]
