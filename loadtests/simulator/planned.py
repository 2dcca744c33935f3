"""The requests of a real run, as files have them."""

from __future__ import annotations

import msgspec

from engine.scheduling import Priority
from loadtests.simulator.errors import SimulationError
from loadtests.simulator.request import Request


class PlannedRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request of a plan, as files have it; see `Request`."""

    at: float
    person: int | None = None
    brings_bytes: bool = False
    prompt: int | None = None
    images: int = 1
    steps: int = 20
    guided: bool = True
    width: int | None = None
    height: int | None = None
    priority: str = "interactive"
    deadline: float | None = None
    cancel_after: float | None = None
    deterministic: bool = False

    def request(self, number: int) -> Request:
        """Return it as the simulator takes it. Raises SimulationError."""
        if self.priority.upper() not in Priority.__members__:
            raise SimulationError("priority", f"{self.priority} is neither interactive nor batch")
        return Request(
            id=number,
            at=self.at,
            person=self.person,
            brings_bytes=self.brings_bytes,
            prompt=self.prompt,
            images=self.images,
            steps=self.steps,
            rows=2 if self.guided else 1,
            width=self.width,
            height=self.height,
            priority=Priority[self.priority.upper()],
            deadline=self.deadline,
            cancel_after=self.cancel_after,
            deterministic=self.deterministic,
        )
