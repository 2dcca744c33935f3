"""The request: what a caller asks for, and when."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from engine.scheduling import Priority
from loadtests.simulator.errors import SimulationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Ask for `images` pictures at second `at`. Raises SimulationError.

    person: whose reference, by number; None for a request without one.
    brings_bytes: it carries the picture, so that a miss costs no second round trip.
    prompt: texts with the same number are equal; None for one that nobody else asks for.
    rows: 2 with guidance, else 1. deadline and cancel_after: seconds after `at`.
    """

    id: int
    at: float
    person: int | None = None
    brings_bytes: bool = False
    prompt: int | None = None
    images: int = 1
    steps: int = 20
    rows: int = 2
    width: int | None = None
    height: int | None = None
    priority: Priority = Priority.INTERACTIVE
    deadline: float | None = None
    cancel_after: float | None = None
    deterministic: bool = False

    def __post_init__(self) -> None:
        if not (isfinite(self.at) and self.at >= 0):
            raise SimulationError("at", f"request {self.id}: {self.at} is no moment from 0 on")
        if self.images < 1:
            raise SimulationError("images", f"request {self.id}: {self.images} is less than 1")
        if self.steps < 1:
            raise SimulationError("steps", f"request {self.id}: {self.steps} is less than 1")
        if self.rows not in (1, 2):
            raise SimulationError("rows", f"request {self.id}: {self.rows} is neither 1 nor 2")
        if (self.width is None) != (self.height is None):
            raise SimulationError("width", f"request {self.id}: width and height come together")
