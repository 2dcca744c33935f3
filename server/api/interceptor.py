"""The one interceptor: request id, decoding, error mapping, metrics and access log around every handler."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError
from structlog.typing import FilteringBoundLogger

from server.api.access_log import AccessLog
from server.api.calls import REQUEST_ID_KEY, Call, enter_call
from server.api.gate import Gate
from server.api.status import DETAILS_KEY, status_of
from server.api.wire import text_violation
from server.errors import (
    Code,
    DrainingError,
    FieldViolation,
    InternalError,
    InvalidFieldsError,
    LimnerError,
    Reason,
)

Handle = Callable[[Any, grpc.aio.ServicerContext], Awaitable[Any]]


class CallObserver(Protocol):
    """Is told of RPCs; :class:`server.api.call_metrics.CallMetrics` is one."""

    def started(self, call: Call) -> None:
        """An RPC has begun."""
        ...

    def ended(self, call: Call) -> None:
        """It has ended; its code and reason are known."""
        ...


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """Stands in for a request that could not be parsed, so that the handler's wrapper can answer properly."""

    error: InvalidFieldsError


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Wraps the handlers of ``methods``; health and reflection pass through."""

    def __init__(
        self,
        *,
        methods: Container[str],
        gate: Gate,
        observer: CallObserver,
        traces: CallObserver,
        access_log: AccessLog,
        log: FilteringBoundLogger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._methods = methods
        self._gate = gate
        self._observer = observer
        self._traces = traces
        self._access_log = access_log
        self._log = log
        self._clock = clock
        self._wrapped: dict[str, grpc.RpcMethodHandler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """Return the handler, wrapped once and kept."""
        method: str = handler_call_details.method
        if method in self._wrapped:
            return self._wrapped[method]
        handler = await continuation(handler_call_details)
        if handler is None or method not in self._methods:
            return handler
        self._wrapped[method] = wrapped = self._wrap(method, handler)
        return wrapped

    def _wrap(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        make = (
            grpc.unary_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        inner: Handle = handler.unary_stream or handler.unary_unary

        async def handle(request: Any, context: grpc.aio.ServicerContext) -> Any:
            return await self._handle(method, inner, request, context)

        return make(
            handle,
            request_deserializer=_tolerant(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )

    async def _handle(
        self, method: str, inner: Handle, request: Any, context: grpc.aio.ServicerContext
    ) -> Any:
        call = Call(method, context, self._clock)
        enter_call(call)
        context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
        self._gate.enter()
        try:
            # A tracing that fails is a failure of the call, which must leave the gate all the same.
            self._observer.started(call)
            self._traces.started(call)
            self._gate.check()
            if isinstance(request, _Unreadable):
                raise request.error
            response = await inner(request, context)
        except asyncio.CancelledError:
            if not self._gate.was_ended():
                # gRPC cancels the handler when the caller leaves and when the deadline passes; the caller knows.
                _end_unheard(call)
                raise
            _this_call_goes_on()
            failure: LimnerError = DrainingError()
            call.end(failure.code.value, failure.reason.value)
        except Exception as error:
            failure = self._failure(call, error)
            call.end(failure.code.value, failure.reason.value)
        else:
            call.end("OK")
            return response
        finally:
            self._gate.leave()
            self._observer.ended(call)
            self._access_log.ended(call)
            self._traces.ended(call)
        status = status_of(failure)
        metadata = ((REQUEST_ID_KEY, call.request_id), (DETAILS_KEY, status.details))
        return await context.abort(status.code, status.text, metadata)

    def _failure(self, call: Call, error: Exception) -> LimnerError:
        """Return what the caller is told of an error; what he is not told is logged."""
        known = error if isinstance(error, LimnerError) else InternalError()
        if known.code is Code.INTERNAL:
            known.metadata.setdefault("request_id", call.request_id)
            cause = error.__cause__ if known is error else error
            if cause is not None:
                self._log.error("call_failed", request_id=call.request_id, method=call.method, exc_info=cause)
        return known


def _end_unheard(call: Call) -> None:
    late = call.is_late
    call.end("DEADLINE_EXCEEDED" if late else "CANCELLED", Reason.DEADLINE_EXCEEDED.value if late else "")


def _this_call_goes_on() -> None:
    """Take back the cancel of this task, which has an answer to send yet."""
    task = asyncio.current_task()
    assert task is not None
    task.uncancel()


def _tolerant(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return a parser that hands back what is wrong; raising would reach the caller as UNKNOWN with our text."""

    def parse_or_tell(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError:
            descriptor = parse.__self__.DESCRIPTOR if hasattr(parse, "__self__") else None
            violation = text_violation(descriptor, data) if descriptor is not None else None
            return _Unreadable(
                InvalidFieldsError(
                    [
                        violation
                        or FieldViolation(
                            field="request",
                            problem="cannot be parsed",
                            limit="the limit is a protobuf message of the method's request type",
                        )
                    ]
                )
            )

    return parse_or_tell
