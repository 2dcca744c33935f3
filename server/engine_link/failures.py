"""What an engine's ``Failed`` means to the caller."""

from __future__ import annotations

from engine.protocol.messages import Failed, FailureReason
from server.errors import (
    DeadlineInfeasibleError,
    DeadlinePassedError,
    FieldViolation,
    InternalError,
    InvalidFieldsError,
    LimnerError,
    NumericalFailureError,
    OverloadedError,
)

RETRY_SECONDS = 1.0
"""Told where the engine names no time."""


def failure_of(failed: Failed, remaining: float | None) -> LimnerError:
    """Return the error to raise; the engine's own text reaches the caller only where it is written for one.

    ``remaining`` is the deadline that the engine was given, in seconds; of an infeasible job, ``retry_after`` says by
    how much it would miss that, and is missing where even an idle engine would: then nothing says to try again.
    """
    retry_after = RETRY_SECONDS if failed.retry_after is None else failed.retry_after
    match failed.reason:
        case FailureReason.INFEASIBLE:
            late = failed.retry_after
            return DeadlineInfeasibleError(
                f"the deadline cannot be met: {failed.message}",
                retry_after=late,
                predicted_seconds=None if remaining is None or late is None else remaining + late,
            )
        case FailureReason.QUEUE_FULL:
            return OverloadedError("images waiting in the engine", limit=None, retry_after=retry_after)
        case FailureReason.DEADLINE:
            return DeadlinePassedError(failed.phase)
        case FailureReason.NUMERICAL:
            return NumericalFailureError(failed.job_id)
        case FailureReason.INVALID:
            return InvalidFieldsError(
                [
                    FieldViolation(
                        field="portrait", problem=failed.message, limit="the engine takes no such portrait"
                    )
                ]
            )
        case FailureReason.CANCELLED | FailureReason.INTERNAL:
            return InternalError()
