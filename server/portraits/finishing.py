"""The finished images of one portrait on their way through the encoding threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.imaging.encode import encode_image
from server.imaging.formats import PictureFormat
from server.imaging.parameters import EmbeddedParameters
from server.imaging.pool import ImagingPool
from server.portraits.news import FinishedImage, Preview
from server.portraits.portrait import Portrait
from server.tracing.trace import Attributes, current_trace

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A picture that came out of the threads."""

    news: FinishedImage | Preview


class Finishing:
    """Encodes pictures in ``pool``; each comes to ``inbox`` as ``Encoded``, or as the exception that it raised.

    ``seconds`` counts the time in which at least one image was being encoded.
    """

    def __init__(
        self, pool: ImagingPool, inbox: asyncio.Queue[object], clock: Callable[[], float], portrait: Portrait
    ) -> None:
        self._pool = pool
        self._inbox = inbox
        self._clock = clock
        self._portrait = portrait
        self._tasks: set[asyncio.Task[Encoded]] = set()
        self._previewed: set[int] = set()
        self._images = 0
        self._since = 0.0
        self.seconds = 0.0

    def image(self, pixels: Pixels, parameters: EmbeddedParameters) -> None:
        """Encode a finished image."""
        if self._images == 0:
            self._since = self._clock()
        self._images += 1
        self._start(self._encode_image(pixels, parameters))

    def preview(self, index: int, step: int, pixels: Pixels) -> None:
        """Encode a preview; none while the one before it is still on its way."""
        if index not in self._previewed:
            self._previewed.add(index)
            self._start(self._encode_preview(index, step, pixels))

    def close(self) -> None:
        """Drop what is on its way."""
        for task in self._tasks:
            task.cancel()

    def _start(self, work: asyncio._CoroutineLike[Encoded]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._deliver)

    def _deliver(self, task: asyncio.Task[Encoded]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            self._inbox.put_nowait(task.exception() or task.result())

    async def _encode_image(self, pixels: Pixels, parameters: EmbeddedParameters) -> Encoded:
        wanted = self._portrait
        try:
            told: Attributes = {
                "limner.image": parameters.index,
                "limner.format": wanted.format.value.lower(),
            }
            with current_trace().stage("limner.encode_output", told):
                data = await self._pool.run(
                    encode_image, pixels, wanted.format, quality=wanted.quality, parameters=parameters
                )
        finally:
            self._images -= 1
            if self._images == 0:
                self.seconds += self._clock() - self._since
        height, width = pixels.shape[:2]
        return Encoded(
            news=FinishedImage(
                index=parameters.index,
                seed=parameters.seed,
                width=width,
                height=height,
                data=data,
                format=wanted.format,
            )
        )

    async def _encode_preview(self, index: int, step: int, pixels: Pixels) -> Encoded:
        try:
            data = await self._pool.run(encode_image, pixels, PictureFormat.PNG)
        finally:
            self._previewed.discard(index)
        return Encoded(news=Preview(index=index, step=step, data=data, format=PictureFormat.PNG))
