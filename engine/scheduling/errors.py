"""What the scheduler refuses, and what the caller can do about it.

The names say what happened, as the reasons in the API do, hence no suffix "Error".
"""

from __future__ import annotations


class SchedulingError(Exception):
    """Base of every error that the scheduler raises on purpose."""


class InvalidJob(SchedulingError, ValueError):  # noqa: N818
    """The job can never run as asked: no bucket holds it, or its fields contradict each other."""


class Infeasible(SchedulingError):  # noqa: N818
    """The job would finish after its deadline, so running it would only be waste.

    Both times are absolute, in seconds of the scheduler's clock; `predicted_finish` includes
    `Policy.headroom`, and so does `least_seconds`: what the job takes on an idle engine. Ask again with a later
    deadline, fewer steps, or another replica; asking again later helps only if `least_seconds` is short enough.
    """

    def __init__(self, *, predicted_finish: float, deadline: float, least_seconds: float) -> None:
        super().__init__(f"would finish {predicted_finish - deadline:.3f} s after its deadline")
        self.predicted_finish = predicted_finish
        self.deadline = deadline
        self.least_seconds = least_seconds


class QueueFull(SchedulingError):  # noqa: N818
    """More images would wait than `limit` allows; `retry_after` is in seconds from now."""

    def __init__(self, *, limit: int, retry_after: float) -> None:
        super().__init__(f"{limit} images may wait; room is expected in {retry_after:.3f} s")
        self.limit = limit
        self.retry_after = retry_after
