"""Reference pictures that wait for the image encoder."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch

from engine.backends.base import Backend, UnknownAdapterError
from engine.protocol.framing import Tensor
from engine.protocol.messages import EncodeReference, FailureReason, ReferenceEncoded, ReferenceFailed

from .errors import Fault
from .guard import all_finite, singled_out
from .outbox import Emit


class ReferenceDesk:
    """Encode all references that wait in one call, at most `batch` of one adapter between two ticks.

    Every call takes exactly `batch` pictures, black ones where fewer wait: the last bits of a reference's tokens depend
    on the size of its batch (in torch f32 at least; not on its place or its neighbours), and a deterministic job must
    repeat its bits after its reference was evicted and encoded again in other company. Compiled encoders want one
    size as well.
    """

    def __init__(
        self,
        backend: Backend,
        emit: Emit,
        clock: Callable[[], float],
        works: Callable[[], bool],
        *,
        batch: int,
    ) -> None:
        self._backend = backend
        self._emit = emit
        self._clock = clock
        self._works = works
        self._batch = batch
        self._waiting: deque[tuple[str, str, Tensor]] = deque()
        """Request id, adapter, picture."""
        self.encoded = 0
        """Pictures that the image encoder took since the start."""

    @property
    def waiting(self) -> int:
        """Pictures that wait."""
        return len(self._waiting)

    def add(self, message: EncodeReference, pixels: Tensor | None) -> None:
        """Let a picture wait; one that the encoder cannot take fails at once."""
        facts = self._backend.facts
        try:
            adapter = facts.adapter(message.adapter)
        except UnknownAdapterError as error:
            self._fail(message.request_id, str(error))
            return
        size = facts.reference_size
        if pixels is None or pixels.dtype != np.uint8 or pixels.shape != (size, size, 3):
            self._fail(message.request_id, f"the picture must be uint8 [{size}, {size}, 3]")
        else:
            self._waiting.append((message.request_id, adapter.name, pixels))

    def encode_waiting(self) -> None:
        """Run the image encoder once, if a picture waits. Raises ``BackendBrokenError``."""
        if not self._waiting:
            return
        adapter = self._waiting[0][1]
        batch = [entry for entry in self._waiting if entry[1] == adapter][: self._batch]
        taken = {id(entry) for entry in batch}
        self._waiting = deque(entry for entry in self._waiting if id(entry) not in taken)
        began = self._clock()
        run = partial(self._run, adapter=adapter)
        results = singled_out([pixels for _, _, pixels in batch], run, self._works)
        seconds = self._clock() - began
        for (request_id, _, _), result in zip(batch, results, strict=True):
            if isinstance(result, Fault):
                self._fail(request_id, result.message)
            else:
                message = ReferenceEncoded(request_id=request_id, seconds=seconds, batch=len(batch))
                self._emit(message, result)

    def _run(self, pictures: Sequence[Tensor], adapter: str) -> list[Tensor | Fault]:
        pixels = np.zeros((self._batch, *pictures[0].shape), dtype=np.uint8)
        pixels[: len(pictures)] = pictures
        tokens = self._backend.encode_images(torch.from_numpy(pixels), adapter)[: len(pictures)]
        self.encoded += len(pictures)
        finite = all_finite(tokens).tolist()
        fault = Fault(
            reason=FailureReason.NUMERICAL, message="the image encoder gave values that are not finite"
        )
        return [row if good else fault for row, good in zip(tokens.cpu().numpy(), finite, strict=True)]

    def _fail(self, request_id: str, message: str) -> None:
        self._emit(ReferenceFailed(request_id=request_id, message=message))
