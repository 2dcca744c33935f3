"""Traces by OpenTelemetry, sent over OTLP/gRPC. Imported only where an endpoint is configured.

The SDK's batch processor sends from a thread of its own and drops spans, with a word in the log, when the collector
does not keep up: no call ever waits for it. Sampling, resource attributes and the exporter's headers, certificates and
timeouts are the SDK's, by its ``OTEL_*`` variables.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Timer

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from server.tracing.trace import NOTHING, Attributes, TickSpan, Trace, TraceIds, within

FLUSH_SECONDS = 2.0
"""At its end the server waits so long for the collector to take the last spans."""


class OtelTracing:
    """Begins traces, and owns what sends them to ``endpoint``."""

    def __init__(self, endpoint: str, *, version: str) -> None:
        self._exporter = OTLPSpanExporter(endpoint=endpoint)
        self._processor = BatchSpanProcessor(self._exporter)
        resource = Resource.create({SERVICE_VERSION: version})
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "limner"}))
        calls = TracerProvider(resource=resource, shutdown_on_exit=False)
        # A tick is told when a call that was sampled ran in it, so it is not sampled once more.
        ticks = TracerProvider(resource=resource, sampler=ALWAYS_ON, shutdown_on_exit=False)
        for provider in (calls, ticks):
            provider.add_span_processor(self._processor)
        self._calls = calls.get_tracer("limner.server", version)
        self._ticks = ticks.get_tracer("limner.engine", version)
        self._propagator = TraceContextTextMapPropagator()

    def call(self, name: str, *, carrier: Mapping[str, str], began: float, attributes: Attributes) -> Trace:
        """Begin the span of a call under its caller's."""
        clock = WallClock()
        # Into an empty context: whatever is current here, a call belongs to its caller alone.
        parent = self._propagator.extract(carrier, Context())
        span = self._calls.start_span(
            name, parent, SpanKind.SERVER, attributes, start_time=clock.nanoseconds(began)
        )
        return OtelTrace(span, clock, self._calls, self._ticks)

    async def close(self) -> None:
        """Send the last spans, for at most ``FLUSH_SECONDS``."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        # The processor itself would wait half a minute for a collector that is away.
        impatience = Timer(FLUSH_SECONDS, self._exporter.shutdown)
        impatience.daemon = True
        impatience.start()
        self._processor.shutdown()  # type: ignore[no-untyped-call]
        impatience.cancel()


class WallClock:
    """Turns moments of ``time.monotonic`` into nanoseconds of Unix time."""

    def __init__(self) -> None:
        self._zero = time.time_ns() - time.monotonic_ns()

    def nanoseconds(self, moment: float) -> int:
        """Return the Unix time of a moment."""
        return self._zero + int(moment * 1e9)


class OtelTrace:
    """A span of OpenTelemetry's."""

    def __init__(self, span: Span, clock: WallClock, spans: Tracer, ticks: Tracer) -> None:
        self._span = span
        self._clock = clock
        self._spans = spans
        self._ticks = ticks
        self._context = set_span_in_context(span, Context())
        found = span.get_span_context()
        # One whose context is invalid, as all of an SDK that is switched off, is nowhere to be found.
        self.ids: TraceIds | None = (
            TraceIds(
                trace_id=f"{found.trace_id:032x}",
                span_id=f"{found.span_id:016x}",
                sampled=found.trace_flags.sampled,
            )
            if found.is_valid
            else None
        )

    @property
    def is_recorded(self) -> bool:
        """Whether the sampler wants it."""
        return self._span.is_recording()

    @contextmanager
    def stage(self, name: str, attributes: Attributes = NOTHING) -> Iterator[Trace]:
        """Make the block a span under this one; an exception's class, never its text, says why it failed."""
        now = self._clock.nanoseconds(time.monotonic())
        span = self._spans.start_span(name, self._context, attributes=attributes, start_time=now)
        trace = OtelTrace(span, self._clock, self._spans, self._ticks)
        error = ""
        try:
            with within(trace):
                yield trace
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            trace.end(ended=time.monotonic(), error=error)

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
        """Put what has happened under this span."""
        span = self._spans.start_span(
            name,
            self._context,
            attributes=attributes,
            links=[tick.link for tick in ticks if isinstance(tick.link, Link)],
            start_time=self._clock.nanoseconds(began),
        )
        for tick in ticks:
            # A report comes after its tick, and so at times after the stage.
            at = self._clock.nanoseconds(min(max(tick.ended, began), ended))
            span.add_event("limner.tick", tick.attributes, timestamp=at)
        OtelTrace(span, self._clock, self._spans, self._ticks).end(ended=max(began, ended), error=error)

    def tick(self, *, began: float, ended: float, attributes: Attributes) -> TickSpan:
        """Tell of a tick in a trace of its own."""
        start = self._clock.nanoseconds(began)
        span = self._ticks.start_span("limner.tick", Context(), attributes=attributes, start_time=start)
        span.end(self._clock.nanoseconds(ended))
        return TickSpan(ended=ended, attributes=attributes, link=Link(span.get_span_context(), attributes))

    def note(self, attributes: Attributes) -> None:
        """Add attributes."""
        self._span.set_attributes(attributes)

    def end(self, *, ended: float, attributes: Attributes = NOTHING, error: str = "") -> None:
        """End the span."""
        self._span.set_attributes(attributes)
        if error:
            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end(self._clock.nanoseconds(ended))
