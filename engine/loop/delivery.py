"""Delivery: finished latents through the VAE to the server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch

from engine.backends.base import Backend
from engine.protocol.framing import Tensor

from .decoding import DecodeQueue
from .errors import Fault
from .guard import singled_out
from .inflight import ImageInFlight
from .jobs import Jobs


class Delivery:
    """Decode what is due and send it.

    The decoder runs within ``meanwhile()``: others may admit jobs then, and end none.
    """

    def __init__(
        self,
        backend: Backend,
        decodes: DecodeQueue[ImageInFlight],
        jobs: Jobs,
        clock: Callable[[], float],
        works: Callable[[], bool],
        meanwhile: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._backend = backend
        self._decodes = decodes
        self._jobs = jobs
        self._clock = clock
        self._works = works
        self._meanwhile = meanwhile

    def decode_due(self, *, idle: bool) -> None:
        """Decode the batches that are due; `idle` says that no tick waits. Raises ``BackendBrokenError``."""
        for batch in self._decodes.due(idle=idle):
            self._expire(batch)
            alive = [image for image in batch if image.job.id in self._jobs]
            if alive:
                self._deliver(alive)

    def _deliver(self, images: Sequence[ImageInFlight]) -> None:
        began = self._clock()
        results = singled_out(images, self._decode, self._works)
        seconds = self._clock() - began
        for job in dict.fromkeys(image.job for image in images):
            job.decode_seconds += seconds
        for image, result in zip(images, results, strict=True):
            if image.job.id not in self._jobs:
                continue  # another image of its job has just failed
            if isinstance(result, Fault):
                self._jobs.fail(image.job, result)
            else:
                self._jobs.deliver(image, result)

    def _expire(self, batch: Sequence[ImageInFlight]) -> None:
        now = self._clock()
        self._jobs.expire(
            image.item for image in batch if image.job.deadline is not None and image.job.deadline <= now
        )

    def _decode(self, images: Sequence[ImageInFlight]) -> Sequence[Tensor]:
        latents = torch.stack([image.state[0] for image in images if image.state is not None])
        with self._meanwhile():
            pixels: Tensor = self._backend.decode_latents(latents).cpu().numpy()
        return list(pixels)
