"""Finished latents that wait for the VAE, and when they go."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from engine.scheduling import WorkItem

WORTHWHILE = 0.95
"""A larger decode batch must cost at most this share of the smaller one's time for each image."""


class Decodable(Protocol):
    """A finished image: its item, and the job that `DecodeQueue.drop` knows it by."""

    @property
    def item(self) -> WorkItem:
        """The image as the scheduler had it."""

    @property
    def job(self) -> object:
        """The job that it belongs to."""


ImageT = TypeVar("ImageT", bound=Decodable)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodePlan:
    """Say how images are decoded; ``plan_decoding`` derives it from measured times.

    ``batch``: images in one call. ``patience_ticks``: ticks that an image waits for others to fill the batch.
    """

    batch: int = 1
    patience_ticks: int = 2


def plan_decoding(decodes: dict[int, float], *, stall: float, patience_ticks: int) -> DecodePlan:
    """Choose the largest decode batch that saves time and takes no longer than `stall` seconds.

    Where batching saves nothing (a CPU), images are decoded one by one as they finish: no image waits.
    """
    best = 1
    for batch in sorted(decodes)[1:]:
        cheaper = decodes[batch] / batch <= WORTHWHILE * decodes[best] / best
        if cheaper and decodes[batch] <= stall:
            best = batch
    return DecodePlan(batch=best, patience_ticks=patience_ticks)


class DecodeQueue(Generic[ImageT]):
    """Hold finished images, first in, first out.

    A batch goes when it is full, when its first image has waited ``patience_ticks``, or when no tick is waiting. All
    that may go do so before the next tick: those who run lose no more by it than if the same decodes came one a tick,
    and what is finished is with its caller, when the scheduler's forecast said.

    A batch has one latent shape. A deterministic image goes by itself: the last bits of a decoded picture
    depend on the batch that it ran in.
    """

    def __init__(self, plan: DecodePlan) -> None:
        self._plan = plan
        self._queue: deque[tuple[ImageT, int]] = deque()
        self._turn = 0

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, image: ImageT) -> None:
        """Let a finished image wait."""
        self._queue.append((image, self._turn))

    def drop(self, job: object) -> None:
        """Forget the images of a job."""
        self._queue = deque(entry for entry in self._queue if entry[0].job is not job)

    def due(self, *, idle: bool) -> list[list[ImageT]]:
        """Return the batches to decode before the next tick. Call it between any two; `idle` says that none waits."""
        self._turn += 1
        batches: list[list[ImageT]] = []
        while (batch := self._head()) and (idle or self._ready(batch)):
            taken = {id(image) for image in batch}
            self._queue = deque(entry for entry in self._queue if id(entry[0]) not in taken)
            batches.append(batch)
        return batches

    def _ready(self, batch: list[ImageT]) -> bool:
        waited = self._turn - self._queue[0][1]
        full = batch[0].item.deterministic or len(batch) >= self._plan.batch
        return full or waited > self._plan.patience_ticks

    def _head(self) -> list[ImageT]:
        if not self._queue:
            return []
        first, _ = self._queue[0]
        if first.item.deterministic:
            return [first]
        alike = (
            image
            for image, _ in self._queue
            if image.item.shape == first.item.shape and not image.item.deterministic
        )
        return [image for image, _ in zip(alike, range(self._plan.batch), strict=False)]
