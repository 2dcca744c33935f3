"""Work that is in flight: what to send to an engine, again after a death, and where its news go."""

from __future__ import annotations

import asyncio
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.protocol.framing import Frame, ProtocolError, Tensor
from engine.protocol.messages import (
    Cancel,
    EncodeReference,
    Failed,
    Finished,
    ImageReady,
    Message,
    PreviewReady,
    ReferenceEncoded,
    ReferenceFailed,
    Started,
    Step,
    Submit,
)
from server.engine_link.failures import failure_of
from server.errors import DeadlinePassedError, LimnerError
from server.references.encoder import EncodedReference
from server.references.errors import ReferenceEncodingFailed
from server.tracing.job import JobTrace
from server.tracing.trace import current_trace

Inbox = asyncio.Queue[object]
"""Where a job's news go: ``Frame`` from the engine, or a ``LimnerError`` that ended the job."""


class Recipient(Protocol):
    """An engine, as work knows it."""

    def cancel(self, message: Message, *, now: float) -> None:
        """Send the cancellation of a job."""
        ...


class Work(Protocol):
    """What the ledger keeps."""

    id: str
    sent_to: Recipient | None
    """The engine that has it."""
    deaths: int
    effort: float
    """How much it asks of an engine: rows of a step, by the pixels of each."""

    def frame(self, now: float) -> Frame:
        """Return what to send. Raises ``LimnerError`` when it is too late."""
        ...

    def hear(self, frame: Frame) -> bool:
        """Take news from the engine; True when they were the last."""
        ...

    def fail(self, error: LimnerError) -> None:
        """End without a result."""
        ...

    def died(self) -> None:
        """Take the death of the engine that it was sent to: it is to be sent again."""
        ...

    def cancellation(self) -> Message | None:
        """Return what makes the engine forget it, or None."""
        ...


class Job:
    """A portrait in an engine. It may run on several, one after the other; the news of it never repeat an image.

    ``deadline`` is absolute, in seconds of the clock that ``frame`` is given. ``phase`` is where it is:
    ``queued``, ``denoising`` until every image took its last step, ``decoding`` until the last of them came, then
    ``encoding_output``, which is the server's own work.
    """

    def __init__(
        self, submit: Submit, tokens: NDArray[np.float32] | None, *, deadline: float | None, inbox: Inbox
    ) -> None:
        self.id = submit.job_id
        self.sent_to: Recipient | None = None
        self.deaths = 0
        self.effort = _effort(submit)
        self.phase = "queued"
        self.submit = submit
        self.deadline = deadline
        self._tokens = tokens
        self._inbox = inbox
        self.asked = 0.0
        """When an engine was last asked for it."""
        self._remaining: float | None = None
        self._step = 0
        self._wanted = tuple(range(len(submit.seeds)))
        """Index, in the portrait, of each image that the present engine was asked for."""
        self._delivered: set[int] = set()
        self.trace = JobTrace(current_trace())

    def frame(self, now: float) -> Frame:
        """Return a ``Submit`` of the images that are still missing. Raises ``DeadlinePassedError``."""
        remaining = None if self.deadline is None else self.deadline - now
        if remaining is not None and remaining <= 0:
            raise DeadlinePassedError(self.phase)
        seeds = self.submit.seeds
        missing = tuple(index for index in range(len(seeds)) if index not in self._delivered)
        # An engine that died between the last image and Finished is asked for one image again: it tells the timings.
        self._wanted = missing or (len(seeds) - 1,)
        self.asked, self._remaining = now, remaining
        if missing:
            self.phase = "queued"
        submit = msgspec.structs.replace(
            self.submit, deadline=remaining, seeds=tuple(seeds[index] for index in self._wanted)
        )
        return Frame(message=submit, tensor=self._tokens)

    def hear(self, frame: Frame) -> bool:
        """Pass the news on, without what an earlier engine told already. Raises ``ProtocolError``."""
        self.trace.heard(frame.message)
        match frame.message:
            case Failed() as failed:
                self._inbox.put_nowait(failure_of(failed, self._remaining))
                return True
            case Step(step=step, steps=steps):
                if step >= steps:
                    self._enter("decoding")
                if step <= self._step:
                    return False
                self._step = step
            case Started():
                self._enter("denoising")
            case ImageReady(index=index) | PreviewReady(index=index):
                if not 0 <= index < len(self._wanted):
                    raise ProtocolError(f"image {index} of a job of {len(self._wanted)}")
                return self._hear_of_image(frame, self._wanted[index])
            case _:
                pass
        self._inbox.put_nowait(frame)
        return isinstance(frame.message, Finished)

    def _hear_of_image(self, frame: Frame, index: int) -> bool:
        if index in self._delivered:
            return False
        if isinstance(frame.message, ImageReady):
            self._delivered.add(index)
            if len(self._delivered) == len(self.submit.seeds):
                self.phase = "encoding_output"
        message = msgspec.structs.replace(frame.message, index=index)
        self._inbox.put_nowait(Frame(message=message, tensor=frame.tensor))
        return False

    def _enter(self, phase: str) -> None:
        """Note the engine's phase; a job that has all its images is with the server, whatever an engine does again."""
        if len(self._delivered) < len(self.submit.seeds):
            self.phase = phase

    def fail(self, error: LimnerError) -> None:
        """Tell the inbox."""
        self.trace.end(error.reason.value)
        self._inbox.put_nowait(error)

    def died(self) -> None:
        """Be sent again."""
        self.deaths += 1
        self.sent_to = None
        self.trace.died()

    def cancellation(self) -> Message | None:
        """Return a ``Cancel``."""
        return Cancel(job_id=self.id)


class Encoding:
    """A reference in an engine."""

    def __init__(
        self, request_id: str, pixels: Tensor, future: asyncio.Future[EncodedReference], *, adapter: str = ""
    ) -> None:
        self.id = request_id
        self.sent_to: Recipient | None = None
        self.deaths = 0
        self.effort = float(pixels.shape[0] * pixels.shape[1])
        """About that of a row of its size."""
        self._pixels = pixels
        self._adapter = adapter
        self._future = future

    def frame(self, now: float) -> Frame:
        """Return an ``EncodeReference``."""
        return Frame(message=EncodeReference(request_id=self.id, adapter=self._adapter), tensor=self._pixels)

    def hear(self, frame: Frame) -> bool:
        """Resolve the future."""
        if self._future.done():
            return True
        match frame.message:
            case ReferenceEncoded(seconds=seconds, batch=batch) if frame.tensor is not None:
                self._future.set_result(EncodedReference(tokens=frame.tensor, seconds=seconds, batch=batch))
            case ReferenceFailed(message=message):
                self._future.set_exception(ReferenceEncodingFailed(message))
            case _:
                self._future.set_exception(ReferenceEncodingFailed("the engine answered without tokens"))
        return True

    def fail(self, error: LimnerError) -> None:
        """Fail the future."""
        if not self._future.done():
            self._future.set_exception(error)

    def died(self) -> None:
        """Be sent again."""
        self.deaths += 1
        self.sent_to = None

    def cancellation(self) -> Message | None:
        """Return None: an encode is short, and its answer is dropped."""
        return None


def _effort(submit: Submit) -> float:
    guided = max(0.0, submit.guidance_end - submit.guidance_start) if submit.guidance_scale > 1 else 0.0
    return len(submit.seeds) * submit.steps * (1 + guided) * submit.width * submit.height
