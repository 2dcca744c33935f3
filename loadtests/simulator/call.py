"""The call: a request on its way through a replica, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from engine.scheduling import WorkItem
from engine.scheduling.simulate import Outcome
from loadtests.simulator.request import Request


class Found(Enum):
    """Where the reference was."""

    NONE = "none"
    HIT = "hit"
    SHARED = "shared"
    COALESCED = "coalesced"
    MISS = "miss"


@dataclass(slots=True, kw_only=True, eq=False)
class Call:
    """Hold what is known of a request so far; moments are absolute, in seconds, None for what did not happen."""

    request: Request
    replica: int
    found: Found = Found.NONE
    admitted: float | None = None
    started: float | None = None
    ended: float | None = None
    outcome: Outcome | None = None
    pictures: list[Picture] = field(default_factory=list)
    delivered: int = 0

    @property
    def latency(self) -> float:
        """Return the seconds from the request to its end."""
        assert self.ended is not None, f"request {self.request.id} has not ended"
        return self.ended - self.request.at


@dataclass(slots=True, kw_only=True, eq=False)
class Picture:
    """One picture of a call, as the queue of the VAE takes it."""

    item: WorkItem
    job: Call
