"""Carries plans out on the calling thread."""

import threading
from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar

import grpc

from limner_client.channel import cancelled, failed
from limner_client.effects import Call, Emit, Open, Plan, Receive, Sleep
from limner_client.errors import LimnerError
from limner_client.events import Event

T = TypeVar("T")

Wait = Callable[[threading.Event, float], object]
"""Waits for so many seconds, or until the event is set. `threading.Event.wait` does; tests pass their own."""


class Lane:
    """Makes the gRPC calls of one logical call, one after another. `cancel` may come from any thread."""

    def __init__(self, channel: grpc.Channel, wait: Wait) -> None:
        self._channel = channel
        self._wait = wait
        self._cancelled = threading.Event()
        self._call: Call
        self._rpc: Any = None

    def unary(self, call: Call) -> bytes:
        """Make a unary call. Raises LimnerError."""
        self._start(call, self._channel.unary_unary(call.path).future)
        reply: bytes = self._guard(self._rpc.result)
        return reply

    def open(self, call: Call) -> None:
        """Start a server-streaming call."""
        self._start(call, self._channel.unary_stream(call.path))

    def receive(self) -> bytes | None:
        """Wait for the stream's next message; None is its end. Raises LimnerError."""
        return self._guard(lambda: next(self._rpc, None))

    def sleep(self, seconds: float) -> None:
        """Wait, but not past a cancellation."""
        self._wait(self._cancelled, seconds)

    def cancel(self) -> None:
        """Give up the call in flight and every later one."""
        self._cancelled.set()
        if self._rpc is not None:
            self._rpc.cancel()

    def _start(self, call: Call, start: Callable[..., Any]) -> None:
        self._call = call
        if self._cancelled.is_set():
            raise cancelled(call)
        try:
            self._rpc = start(call.request, timeout=call.timeout, metadata=call.metadata)
        except ValueError as error:  # what grpc raises when the channel is closed
            raise cancelled(call, "the client is closed") from error
        if self._cancelled.is_set():
            self._rpc.cancel()

    def _guard(self, wait: Callable[[], T]) -> T:
        """Wait for the server; whatever interrupts the wait (Ctrl-C) cancels the call."""
        try:
            return wait()
        except grpc.FutureCancelledError:
            raise cancelled(self._call) from None
        except grpc.RpcError as error:
            raise failed(error, self._call) from error
        except BaseException:
            self.cancel()
            raise


class Driver(Generic[T]):
    """Carries a plan out, from event to event."""

    def __init__(self, plan: Plan[T], lane: Lane) -> None:
        self._plan = plan
        self._lane = lane
        self.result: T | None = None

    def advance(self) -> Event | None:
        """Run to the next event, or to the plan's end, which is None. Raises LimnerError."""
        answer: bytes | None = None
        error: LimnerError | None = None
        while True:
            try:
                effect = self._plan.send(answer) if error is None else self._plan.throw(error)
            except StopIteration as stop:
                self.result = stop.value
                return None
            answer, error = None, None
            try:
                match effect:
                    case Call():
                        answer = self._lane.unary(effect)
                    case Open():
                        self._lane.open(effect.call)
                    case Receive():
                        answer = self._lane.receive()
                    case Sleep():
                        self._lane.sleep(effect.seconds)
                    case Emit():
                        return effect.event
            except LimnerError as failure:
                error = failure

    def run(self) -> T:
        """Run a plan that emits nothing, and give its result. Raises LimnerError."""
        self.advance()
        return self.result  # type: ignore[return-value]  # set, now that the plan has ended

    def close(self) -> None:
        """Abandon the plan."""
        self._plan.close()


class PortraitStream:
    """Iterates over the events of a portrait that is being made; `Completed` is the last one.

    One thread iterates; `cancel` may come from any other. Leaving the `with` block cancels what still runs,
    and so does dropping the stream.
    """

    def __init__(self, plan: Plan[None], lane: Lane) -> None:
        self._driver = Driver(plan, lane)
        self._lane = lane

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        event = self._driver.advance()
        if event is None:
            raise StopIteration
        return event

    def cancel(self) -> None:
        """Stop the generation: the iterating thread gets `Cancelled`, and the server frees its rows."""
        self._lane.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lane.cancel()
        self._driver.close()
