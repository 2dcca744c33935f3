"""Whether a call that ended on its caller's side ran out of time, or was left."""

from __future__ import annotations

SLACK_SECONDS = 0.05
"""For the way here: the caller's clock began, and rings, before ours."""
SLACK_SHARE = 0.02
"""gRPC sends what remains with two or three digits, rounded up.

https://github.com/grpc/grpc/blob/master/src/core/lib/transport/timeout_encoding.cc
"""


def is_late(*, arrived: float, deadline: float | None, now: float) -> bool:
    """Return whether a call that is cancelled ``now`` has come to its deadline, by its caller's clock at least."""
    if deadline is None:
        return False
    return now >= deadline - SLACK_SECONDS - SLACK_SHARE * (deadline - arrived)
