"""The record: one request of a run, and what became of it."""

from __future__ import annotations

import msgspec

from loadtests.runner.request import PlannedRequest, Priority
from loadtests.runner.target import Outcome, Stages, Status


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A request that was sent. Moments in seconds from the start of the load.

    due: when it was to be sent; sent: when it was; done: when it had its answer.
    """

    number: int
    stream: str
    phase: str
    due: float
    sent: float
    done: float
    status: Status
    reason: str = ""
    message: str = ""
    retry_after: float | None = None
    images: int = 0
    cache: str | None = None
    resent: bool = False
    stages: Stages | None = None
    batch_rows: float | None = None
    person: int | None = None
    steps: int = 0
    priority: Priority = "interactive"

    @property
    def latency(self) -> float:
        """Seconds from the moment that it was due, so that a generator or target that stalls hides nothing.

        Measured from `sent`, requests that a stall held back would look fast: coordinated omission.
        """
        return self.done - self.due

    @property
    def service(self) -> float:
        """Seconds from the moment that it was sent."""
        return self.done - self.sent


def record(request: PlannedRequest, outcome: Outcome, *, due: float, sent: float, done: float) -> Record:
    """Put a request and its outcome together."""
    return Record(
        number=request.number,
        stream=request.stream,
        phase=request.phase,
        due=due,
        sent=sent,
        done=done,
        status=outcome.status,
        reason=outcome.reason,
        message=outcome.message,
        retry_after=outcome.retry_after,
        images=outcome.images,
        cache=outcome.cache,
        resent=outcome.resent,
        stages=outcome.stages,
        batch_rows=outcome.batch_rows,
        person=request.person,
        steps=request.steps,
        priority=request.priority,
    )
