"""Finished latents that wait for the VAE, and when they go."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from .inflight import ImageInFlight, JobInFlight


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodePlan:
    """Say how images are decoded; ``warmup.plan_decoding`` derives it from measured times.

    ``batch``: images in one call. ``patience_ticks``: ticks that an image waits for others to fill the batch.
    ``backlog``: when so many images wait, another batch goes before the next tick, and one more for each
    further so many.
    """

    batch: int = 1
    patience_ticks: int = 2
    backlog: int = 8


class DecodeQueue:
    """Hold finished images, first in, first out.

    Between two ticks goes at most one batch, so a tick waits no longer than one call of the VAE; unless
    images finish faster than that (few steps, many rows), when holding decodes back would only let memory grow.
    A batch goes when it is full, when its first image has waited ``patience_ticks``, or when no tick is waiting.

    A batch has one latent shape. A deterministic image goes by itself: the last bits of a decoded picture
    depend on the batch that it ran in.
    """

    def __init__(self, plan: DecodePlan) -> None:
        self._plan = plan
        self._queue: deque[tuple[ImageInFlight, int]] = deque()
        self._turn = 0

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, image: ImageInFlight) -> None:
        """Let a finished image wait."""
        self._queue.append((image, self._turn))

    def drop(self, job: JobInFlight) -> None:
        """Forget the images of a job."""
        self._queue = deque(entry for entry in self._queue if entry[0].job is not job)

    def due(self, *, idle: bool) -> list[list[ImageInFlight]]:
        """Return the batches to decode before the next tick, by a call a tick; `idle` says that none waits."""
        self._turn += 1
        batches: list[list[ImageInFlight]] = []
        for _ in range(1 + len(self._queue) // self._plan.backlog):
            batch = self._head()
            if not batch or not (idle or self._ready(batch)):
                break
            taken = set(batch)
            self._queue = deque(entry for entry in self._queue if entry[0] not in taken)
            batches.append(batch)
        return batches

    def _ready(self, batch: list[ImageInFlight]) -> bool:
        waited = self._turn - self._queue[0][1]
        full = batch[0].item.deterministic or len(batch) >= self._plan.batch
        return full or waited > self._plan.patience_ticks

    def _head(self) -> list[ImageInFlight]:
        if not self._queue:
            return []
        first, _ = self._queue[0]
        if first.item.deterministic:
            return [first]
        alike = (
            image
            for image, _ in self._queue
            if image.job.shape == first.job.shape and not image.item.deterministic
        )
        return [image for image, _ in zip(alike, range(self._plan.batch), strict=False)]
