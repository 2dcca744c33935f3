"""What the engine has refused of late, so that the like of it need not be asked for again."""

from __future__ import annotations

from dataclasses import dataclass

from engine.protocol.messages import Failed, FailureReason, Submit
from server.engine_link.failures import failure_of

MEMORY_SECONDS = 0.25
"""How long a refusal speaks for others. The engine is asked at least so often: it may have become faster since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refused:
    """A job that would have been done at ``finish``; moments are on the link's clock."""

    images: int
    steps: int
    guided: bool
    finish: float
    until: float

    def speaks_for(self, submit: Submit) -> bool:
        """Whether a job takes at least as much."""
        return (
            len(submit.seeds) >= self.images and submit.steps >= self.steps and _guided(submit) >= self.guided
        )


class Refusals:
    """Refuse what could not be done in time, without asking the engine.

    A refused job's prediction holds for whoever comes after it, takes as much, and stands no better in line: he cannot
    be done before. That ends when a job leaves the engine early. Most callers of an overloaded server get their answer
    here, for a fraction of the work.
    """

    def __init__(self) -> None:
        self._latest: dict[tuple[object, ...], _Refused] = {}

    def note(self, submit: Submit, failed: Failed, *, deadline: float | None, now: float) -> None:
        """Learn from the failure of a job, whose ``deadline`` is absolute."""
        match failed.reason:
            case FailureReason.INFEASIBLE:
                if deadline is not None and failed.retry_after is not None:
                    self._latest[_kind(submit)] = _Refused(
                        images=len(submit.seeds),
                        steps=submit.steps,
                        guided=_guided(submit),
                        finish=deadline + failed.retry_after,
                        until=now + MEMORY_SECONDS,
                    )
            case FailureReason.QUEUE_FULL | FailureReason.INVALID:
                pass
            case _:
                self.forget()

    def forget(self) -> None:
        """Take it that the engine has more room than it had: a job has left it early, or it is another engine."""
        self._latest.clear()

    def check(self, submit: Submit, *, deadline: float | None, now: float) -> None:
        """Raise ``DeadlineInfeasibleError`` for a job that the engine would refuse."""
        refused = self._latest.get(_kind(submit))
        if deadline is None or refused is None or now >= refused.until or not refused.speaks_for(submit):
            return
        late = refused.finish - deadline
        if late > 0:
            failed = Failed(
                job_id=submit.job_id,
                reason=FailureReason.INFEASIBLE,
                message=f"would finish {late:.3f} s after its deadline",
                phase="queued",
                retry_after=late,
            )
            raise failure_of(failed, deadline - now)


def _kind(submit: Submit) -> tuple[object, ...]:
    """Return what two jobs must have in common, so that one is no smaller than the other where it has more steps."""
    interval = (submit.guidance_start, submit.guidance_end)
    return submit.width, submit.height, submit.priority, submit.deterministic, interval


def _guided(submit: Submit) -> bool:
    return submit.guidance_scale > 1
