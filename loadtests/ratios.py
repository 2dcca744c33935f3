"""Ratios of what was measured in turns: round by round, since a machine's speed changes from minute to minute."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Return median, least and most of the ratios round by round. Raises ``ValueError`` where rounds differ."""
    each = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    return median(each), each[0], each[-1]


def show(three: tuple[float, float, float]) -> str:
    """Return a ratio as the tables have it: median (least to most)."""
    return "{:.2f} ({:.2f} to {:.2f})".format(*three)
