"""The snapshot: what is in flight, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Count the images in flight, for metrics.

    `waiting` had no tick yet, `running` were in the latest tick, `preempted` had a tick but not the latest.
    `oldest_wait_seconds` is the age of the oldest waiting image, 0 when none waits.
    """

    waiting: int
    running: int
    preempted: int
    rows: int
    oldest_wait_seconds: float
