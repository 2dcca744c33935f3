"""What the engine has refused of late, so that the like of it need not be asked for again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from engine.protocol.messages import Failed, FailureReason, Submit
from server.engine_link.failures import failure_of
from server.errors import LimnerError

MEMORY_SECONDS = 0.25
"""How long a refusal speaks for others; the engine is asked at least so often."""


class Asked(Protocol):
    """A job that an engine was ``asked`` for at that moment; its ``deadline`` is absolute."""

    submit: Submit
    deadline: float | None
    asked: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refused:
    """A job that would have been done at ``finish``, and takes ``least`` seconds on an idle engine.

    Moments are on the link's clock.
    """

    finish: float
    least: float
    until: float


class Refusals:
    """Refuse what could not be done in time, without asking the engine.

    A refused job's prediction holds for whoever comes after it, asks for as much, and stands no better in line: he is
    not done before. A job that leaves the engine early ends that. So may a line that empties or an engine that becomes
    faster, hence the quarter of a second. Most callers of an overloaded server get their answer here, for a fraction of
    the work.
    """

    def __init__(self) -> None:
        self._latest: dict[tuple[object, ...], _Refused] = {}
        self._forgotten = float("-inf")

    def note(self, job: Asked, failed: Failed, *, now: float) -> None:
        """Learn from the failure of a job."""
        match failed.reason:
            case FailureReason.INFEASIBLE:
                late, least = failed.retry_after, failed.least_seconds
                # What was asked for before there was more room was refused for want of it.
                if job.deadline is None or late is None or least is None or job.asked <= self._forgotten:
                    return
                self._latest = {kind: known for kind, known in self._latest.items() if now < known.until}
                refused = _Refused(finish=job.deadline + late, least=least, until=now + MEMORY_SECONDS)
                self._latest[_kind(job.submit)] = refused
            case FailureReason.QUEUE_FULL | FailureReason.INVALID:
                pass
            case _:
                self.forget(now)

    def forget(self, now: float) -> None:
        """Take it that the engine has more room than it had: a job has left it early, or it is another engine."""
        self._forgotten = now
        self._latest.clear()

    def of(self, submit: Submit, *, deadline: float | None, now: float) -> LimnerError | None:
        """Return what the engine would say of a job that it would refuse, and would have time for later; else None."""
        refused = self._latest.get(_kind(submit))
        if deadline is None or refused is None or now >= refused.until:
            return None
        late = refused.finish - deadline
        if late > 0 and deadline - now >= refused.least:
            failed = Failed(
                job_id=submit.job_id,
                reason=FailureReason.INFEASIBLE,
                message=f"would finish {late:.3f} s after its deadline",
                phase="queued",
                retry_after=late,
                least_seconds=refused.least,
            )
            return failure_of(failed, deadline - now)
        return None


def _kind(submit: Submit) -> tuple[object, ...]:
    """Return all that decides how long a job takes and where it stands in line."""
    guided = submit.guidance_scale > 1
    size = (submit.width, submit.height)
    guidance = (submit.guidance_start, submit.guidance_end) if guided else None
    return size, len(submit.seeds), submit.steps, guidance, submit.priority, submit.deterministic
