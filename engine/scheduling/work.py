"""The unit of work: one image, from its first denoising step to its last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import isnan

from .errors import InvalidJob

Shape = tuple[int, int, int]
"""(channels, height, width) of the latents: rows share a UNet call only if theirs are equal."""


class Priority(IntEnum):
    """Who goes first; the smaller value does."""

    INTERACTIVE = 0
    BATCH = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkItem:
    """Describe one image to the scheduler, which knows nothing else about it.

    `id` is unique among the images in flight. `rows` is 2 under classifier-free guidance (text + image
    and unconditional, always in the same tick), else 1; where guidance is limited to the steps of
    `guided_steps`, the others take 1 row. `deadline` is absolute, in seconds of the
    scheduler's clock, and is when the image must be finished, decoding included. A `deterministic` image
    runs all its ticks in `Policy.deterministic_bucket`.

    Raises InvalidJob when a field is out of range.
    """

    id: str
    job_id: str
    steps: int
    rows: int
    shape: Shape
    priority: Priority = Priority.INTERACTIVE
    deadline: float | None = None
    deterministic: bool = False
    guided_steps: range | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InvalidJob(f"image {self.id}: {self.steps} steps, at least 1 is needed")
        if self.rows not in (1, 2):
            raise InvalidJob(f"image {self.id}: {self.rows} rows, 1 or 2 are possible")
        if self.guided_steps is not None and self.guided_steps.step != 1:
            raise InvalidJob(f"image {self.id}: its guided steps are not one interval")
        if self.deadline is not None and isnan(self.deadline):
            raise InvalidJob(f"image {self.id}: its deadline is not a number")

    def rows_at(self, step: int) -> int:
        """Return how many rows its step takes, from 0."""
        return self.rows if self.guided_steps is None or step in self.guided_steps else 1

    def changes_after(self, step: int) -> int:
        """Return the first later step that takes another number of rows; `steps` when there is none."""
        if self.guided_steps:
            for edge in (self.guided_steps.start, self.guided_steps.stop):
                if step < edge < self.steps:
                    return edge
        return self.steps


def check_job(items: Sequence[WorkItem]) -> None:
    """Raise InvalidJob unless the items are the images of one job."""
    if len({item.job_id for item in items}) != 1:
        raise InvalidJob("a job is one or more images with the same job_id")
    if len({item.id for item in items}) != len(items):
        raise InvalidJob(f"job {items[0].job_id}: two of its images have the same id")
