"""Ticks of a bucket: what a metrics page tells of them, and what the simulator reads of a run."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class BucketTicks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many ticks of a bucket there were, and their seconds together; no file has fewer than none."""

    count: Annotated[int, Meta(ge=0)] = 0
    seconds: Annotated[float, Meta(ge=0)] = 0.0

    def __add__(self, other: BucketTicks) -> BucketTicks:
        """Return both together."""
        return BucketTicks(count=self.count + other.count, seconds=self.seconds + other.seconds)

    def __sub__(self, earlier: BucketTicks) -> BucketTicks:
        """Return those that are not among earlier ones; fewer than none where these are no earlier ones of the same."""
        return BucketTicks(count=self.count - earlier.count, seconds=self.seconds - earlier.seconds)


NONE = BucketTicks()
