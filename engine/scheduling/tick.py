"""The tick: one UNet call."""

from __future__ import annotations

from dataclasses import dataclass

from .work import Shape, WorkItem


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Name the images that one UNet call advances.

    `steps[i]` is the step (from 0) that `items[i]` takes. The batch holds `rows` rows, padded to `bucket`.
    `expected_seconds` is what the cost curve says that the call takes.
    """

    shape: Shape
    bucket: int
    items: tuple[WorkItem, ...]
    steps: tuple[int, ...]
    expected_seconds: float

    @property
    def rows(self) -> int:
        """Count the useful rows; `bucket - rows` are padding."""
        return sum(item.rows_at(step) for item, step in zip(self.items, self.steps, strict=True))
