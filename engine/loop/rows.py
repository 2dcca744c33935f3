"""Which backend slots the rows of each image hold."""

from __future__ import annotations

from collections.abc import Sequence

from engine.backends.base import Backend, RowConditioning
from engine.backends.slots import SlotsExhaustedError

from .inflight import ImageInFlight


class RowSlots:
    """Give images slots when they first run, and take them back when they leave.

    An image keeps its slots while it runs. When the backend has no free slot, an image that is not in the tick
    at hand (it was pre-empted) gives up its own: they hold nothing that cannot be computed again.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._seated: dict[ImageInFlight, None] = {}

    def seat(self, image: ImageInFlight, tick: Sequence[ImageInFlight]) -> None:
        """Place the image's rows, if they have no slots; no image of `tick` gives up its own for it.

        Raises ``SlotsExhaustedError`` when the tick alone needs more slots than there are, and what the
        backend's ``place`` raises; either way the image holds nothing.
        """
        if image.slots:
            return
        placed: list[int] = []
        try:
            for row in image.job.conditioning(self._backend):
                placed.append(self._place(row, tick))  # noqa: PERF401 - what was placed must survive an error
        except Exception:
            for slot in placed:
                self._backend.release(slot)
            raise
        image.slots = tuple(placed)
        self._seated[image] = None

    def release(self, image: ImageInFlight) -> None:
        """Free the image's slots, if it holds any."""
        slots, image.slots = image.slots, ()
        self._seated.pop(image, None)
        for slot in slots:
            self._backend.release(slot)

    def make_room(self, keep: Sequence[ImageInFlight] = ()) -> bool:
        """Free the slots of the image that has held them longest; return whether there was one."""
        victim = next((image for image in self._seated if image not in keep), None)
        if victim is not None:
            self.release(victim)
        return victim is not None

    def _place(self, row: RowConditioning, tick: Sequence[ImageInFlight]) -> int:
        while True:
            try:
                return self._backend.place(row)
            except SlotsExhaustedError:
                if not self.make_room(tick):
                    raise
