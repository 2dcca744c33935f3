"""What the server knows of traces. Nothing here imports OpenTelemetry: :mod:`server.tracing.otel` does, when chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

Attributes = Mapping[str, str | bool | int | float]
"""Of a span or an event. Never a prompt, a picture or a part of one."""
NOTHING: Attributes = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceIds:
    """Where a span is to be found: hexadecimal ids of 32 and 16 digits. Only ``sampled`` spans reach the collector."""

    trace_id: str
    span_id: str
    sampled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TickSpan:
    """A tick that has a span of its own; ``link`` is what the tracing's spans take to point there."""

    ended: float
    attributes: Attributes
    link: object


class Trace(Protocol):
    """A span, as what happens under it sees it. Moments are seconds of ``time.monotonic``."""

    @property
    def ids(self) -> TraceIds | None:
        """Its ids; None where nothing is traced."""
        ...

    @property
    def is_recorded(self) -> bool:
        """Whether anybody will see what is told."""
        ...

    def stage(self, name: str, attributes: Attributes = NOTHING) -> AbstractContextManager[Trace]:
        """Make the block a span under this one, and the present trace of all that runs in it."""
        ...

    def past(
        self,
        name: str,
        *,
        began: float,
        ended: float,
        attributes: Attributes = NOTHING,
        error: str = "",
        ticks: Sequence[TickSpan] = (),
    ) -> None:
        """Put what has happened under this span: ``error`` says what ended it, ``ticks`` become events and links."""
        ...

    def tick(self, *, began: float, ended: float, attributes: Attributes) -> TickSpan:
        """Tell of a tick, in a trace of its own: it belongs to all requests that ran in it."""
        ...

    def note(self, attributes: Attributes) -> None:
        """Add attributes."""
        ...

    def end(self, *, ended: float, attributes: Attributes = NOTHING, error: str = "") -> None:
        """End the span."""
        ...


class Tracing(Protocol):
    """Where traces begin."""

    def call(self, name: str, *, carrier: Mapping[str, str], began: float, attributes: Attributes) -> Trace:
        """Begin the span of a call; ``carrier`` is its metadata, with the caller's W3C context or without."""
        ...

    async def close(self) -> None:
        """Tell what is still to be told, for a bounded time."""
        ...


class NoTrace:
    """The trace of a server that traces nothing; it is its own every part."""

    ids: TraceIds | None = None
    is_recorded = False

    def stage(self, name: str, attributes: Attributes = NOTHING) -> AbstractContextManager[Trace]:  # noqa: D102
        return nullcontext(self)

    def past(  # noqa: D102
        self,
        name: str,
        *,
        began: float,
        ended: float,
        attributes: Attributes = NOTHING,
        error: str = "",
        ticks: Sequence[TickSpan] = (),
    ) -> None:
        pass

    def tick(self, *, began: float, ended: float, attributes: Attributes) -> TickSpan:  # noqa: D102
        return TickSpan(ended=ended, attributes=attributes, link=None)

    def note(self, attributes: Attributes) -> None:  # noqa: D102
        pass

    def end(self, *, ended: float, attributes: Attributes = NOTHING, error: str = "") -> None:  # noqa: D102
        pass

    def call(self, name: str, *, carrier: Mapping[str, str], began: float, attributes: Attributes) -> Trace:  # noqa: D102
        return self

    async def close(self) -> None:  # noqa: D102
        pass


NO_TRACE = NoTrace()

_current: ContextVar[Trace] = ContextVar("limner_trace", default=NO_TRACE)


def current_trace() -> Trace:
    """Return the span under which the present task works."""
    return _current.get()


def enter_trace(trace: Trace) -> None:
    """Make it the present trace of this task and of those that it starts."""
    _current.set(trace)


@contextmanager
def within(trace: Trace) -> Iterator[Trace]:
    """Make it the present trace of a block."""
    token = _current.set(trace)
    try:
        yield trace
    finally:
        _current.reset(token)


def exemplar() -> dict[str, str] | None:
    """Return the labels that lead from an observation to the present trace; None unless the collector gets it."""
    ids = _current.get().ids
    return {"trace_id": ids.trace_id, "span_id": ids.span_id} if ids is not None and ids.sampled else None
