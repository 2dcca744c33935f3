"""A collector: it takes spans over OTLP/gRPC and keeps them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

PATIENCE = 60.0


class Sink(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes what is sent, while ``answers`` is set; ``resources`` are the attributes of the senders."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.resources: list[dict[str, Any]] = []
        self._spans: list[Span] = []
        self._changed = threading.Condition()
        self.answers = threading.Event()
        self.answers.set()

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - the name in the proto
        self.answers.wait()
        with self._changed:
            for sender in request.resource_spans:
                self.resources.append(attributes(sender.resource))
                for scope in sender.scope_spans:
                    self._spans += scope.spans
            self._changed.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    @property
    def spans(self) -> list[Span]:
        with self._changed:
            return list(self._spans)

    def until(self, enough: Callable[[list[Span]], bool]) -> list[Span]:
        """Return the spans once there are enough."""
        end = time.monotonic() + PATIENCE
        with self._changed:
            while not enough(self._spans):
                told = [span.name for span in self._spans]
                assert self._changed.wait(end - time.monotonic()), f"no more than {told}"
            return list(self._spans)

    def trace(self, trace_id: str, count: int = 1) -> dict[str, list[Span]]:
        """Return the spans of a trace by name, once so many calls of it have ended."""

        def ended(spans: list[Span]) -> bool:
            return sum(span.kind == Span.SPAN_KIND_SERVER for span in of(spans)) == count

        def of(spans: list[Span]) -> list[Span]:
            return [span for span in spans if span.trace_id.hex() == trace_id]

        found: dict[str, list[Span]] = {}
        for span in of(self.until(ended)):
            found.setdefault(span.name, []).append(span)
        return found


@contextmanager
def sink() -> Iterator[Sink]:
    """Run one on a free port."""
    servicer = Sink()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    servicer.endpoint = f"http://127.0.0.1:{port}"
    try:
        yield servicer
    finally:
        servicer.answers.set()
        server.stop(None).wait()


def attributes(told: Any) -> dict[str, Any]:
    """Read the attributes of a span, an event, a link or a resource."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in told.attributes}
