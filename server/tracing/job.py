"""A job's stages in the engine as spans, from what the engine says and when it said so.

The two processes share no clock: the moment at which ``Started`` came is the anchor, and the durations of ``Finished``
are laid out from there. A stage that did not end says what ended it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from engine.protocol.messages import Failed, Finished, Message, Started, Step
from server.tracing.trace import TickSpan, Trace

MAX_TICKS = 64
"""Of a job, so many ticks are told one by one; ``limner.ticks`` counts all."""


class JobTrace:
    """Follows one job, on one engine after the other, and puts its stages under ``trace``, if that is recorded."""

    def __init__(self, trace: Trace, clock: Callable[[], float] = time.monotonic) -> None:
        self.trace = trace
        self._clock = clock
        self._is_over = not trace.is_recorded
        self._life = 0
        self._ticks: list[TickSpan] = []
        self._started: float | None = None
        self._denoised: float | None = None
        self._begin()

    def heard(self, message: Message) -> None:
        """Note what the engine says."""
        if self._is_over:
            return
        match message:
            case Started():
                self._started = self._clock()
            case Step(step=step, steps=steps) if step >= steps:
                self._denoised = self._clock()
            case Finished() as finished:
                self._finish(finished)
            case Failed(reason=reason):
                self.end(reason.value)
            case _:
                pass

    def ticked(self, tick: TickSpan) -> None:
        """Note a tick that it ran in."""
        if self._is_over:
            return
        self._count += 1
        if len(self._ticks) < MAX_TICKS:
            self._ticks.append(tick)

    def died(self) -> None:
        """Note that its engine died; it waits for the next one."""
        if self._is_over:
            return
        self._tell("the engine died")
        self._life += 1
        self._begin()

    def end(self, error: str) -> None:
        """End it here, unless it has ended: what it was doing ends with an error."""
        if not self._is_over:
            self._is_over = True
            self._tell(error)

    def _begin(self) -> None:
        self._since = self._clock()
        self._started = self._denoised = None
        self._ticks = []
        self._count = 0

    def _tell(self, error: str) -> None:
        now = self._clock()
        if self._started is None:
            self._past("queue", self._since, now, error)
            return
        self._past("queue", self._since, self._started)
        if self._denoised is None:
            self._denoise(self._started, now, error=error)
            return
        self._denoise(self._started, self._denoised)
        self._past("decode_latents", self._denoised, now, error)

    def _finish(self, finished: Finished) -> None:
        self._is_over = True
        now = self._clock()
        started = now if self._started is None else self._started
        encoded = min(started + finished.encode_prompt_seconds, now)
        denoised = min(encoded + finished.denoise_seconds, now)
        decoded = min(denoised + finished.decode_seconds, now)
        self._past("queue", self._since, started)
        self._past("encode_prompt", started, encoded)
        self._denoise(encoded, denoised, mean_batch_rows=finished.mean_batch_rows)
        self._past("decode_latents", denoised, decoded)

    def _denoise(self, began: float, ended: float, error: str = "", **more: float) -> None:
        self._past("denoise", began, ended, error, self._ticks, ticks=self._count, **more)

    def _past(
        self,
        stage: str,
        began: float,
        ended: float,
        error: str = "",
        told: Sequence[TickSpan] = (),
        **numbers: float,
    ) -> None:
        if self._life:
            numbers["replay"] = self._life
        attributes = {f"limner.{name}": value for name, value in numbers.items()}
        self.trace.past(
            f"limner.{stage}", began=began, ended=ended, attributes=attributes, error=error, ticks=told
        )
