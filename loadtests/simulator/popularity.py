"""Popularity: which person a request is about."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from loadtests.simulator.errors import SimulationError

MAX_PEOPLE = 100_000_000
"""A table of 8 bytes for each: 800 MB."""


class Popularity:
    """Draw people by Zipf's law: the person of rank k (from 0) is asked for in proportion to ``(k + 1) ** -exponent``.

    Raises SimulationError when a value is out of range.
    """

    def __init__(self, people: int, exponent: float) -> None:
        if not 1 <= people <= MAX_PEOPLE:
            raise SimulationError("people", f"{people} is not from 1 to {MAX_PEOPLE}")
        if not 0 <= exponent <= 4:
            raise SimulationError("zipf", f"{exponent} is not from 0 to 4")
        self.people = people
        self._cumulative = np.cumsum(np.arange(1, people + 1, dtype=np.float64) ** -exponent)
        self._cumulative /= self._cumulative[-1]

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return `count` people, independent of one another."""
        drawn = np.searchsorted(self._cumulative, rng.random(count), side="right")
        return np.minimum(drawn, self.people - 1)

    def shares(self) -> NDArray[np.float64]:
        """Return each person's share of the requests."""
        return np.diff(self._cumulative, prepend=0.0)
