"""What an operator may tune."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Set the scheduler's limits.

    deterministic_bucket: the one bucket for ticks that hold a deterministic image. A power of two that the
        backend compiled; ticks that hold such an image are never larger, so small costs throughput.
    max_waiting: images that may wait for their first tick.
    aging_seconds: a BATCH image counts as an INTERACTIVE one that arrived this much later, so it gives way
        to those that come sooner than that after it, and to no others: nothing starves.
    headroom: admission multiplies predicted times by this before it compares them with a deadline: the margin for
        a machine that is slower for a while, and for what comes after an image and makes its batch grow.
    finish_seconds: engine time that an image takes after its last step (VAE decode, hand-over), during
        which no tick runs.

    Raises ValueError when a value is out of range.
    """

    deterministic_bucket: int
    max_waiting: int = 256
    aging_seconds: float = 30.0
    headroom: float = 1.1
    finish_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.deterministic_bucket < 1 or self.deterministic_bucket.bit_count() != 1:
            raise ValueError(f"deterministic_bucket is {self.deterministic_bucket}, not a power of two")
        if self.max_waiting < 1:
            raise ValueError(f"max_waiting is {self.max_waiting}, at least 1 is needed")
        if not 0 <= self.aging_seconds < float("inf"):
            raise ValueError(f"aging_seconds is {self.aging_seconds}, neither bounded nor positive")
        if not self.headroom >= 1:
            raise ValueError(f"headroom is {self.headroom}, at least 1 is needed")
        if not self.finish_seconds >= 0:
            raise ValueError(f"finish_seconds is {self.finish_seconds}, it cannot be negative")
