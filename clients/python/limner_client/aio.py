"""Carries plans out on an asyncio event loop; the counterpart of `blocking`."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Self, TypeVar

import grpc
import grpc.aio

from limner_client.channel import cancelled, failed
from limner_client.effects import Call, Emit, Open, Plan, Receive, Sleep
from limner_client.errors import LimnerError
from limner_client.events import Event

T = TypeVar("T")

AsyncWait = Callable[[asyncio.Event, float], Awaitable[object]]
"""Waits for so many seconds, or until the event is set. `wait_for_event` does; tests pass their own."""


async def wait_for_event(event: asyncio.Event, seconds: float) -> None:
    """Wait until `event` is set, or for so many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


class AsyncLane:
    """Makes the gRPC calls of one logical call, one after another. Cancelling the task cancels the call."""

    def __init__(self, channel: grpc.aio.Channel, wait: AsyncWait) -> None:
        self._channel = channel
        self._wait = wait
        self._cancelled = asyncio.Event()
        self._call: Call
        self._rpc: Any = None

    async def unary(self, call: Call) -> bytes:
        """Make a unary call. Raises LimnerError."""
        self._start(call, self._channel.unary_unary(call.path))
        reply: bytes = await self._guard(self._rpc)
        return reply

    def open(self, call: Call) -> None:
        """Start a server-streaming call."""
        self._start(call, self._channel.unary_stream(call.path))

    async def receive(self) -> bytes | None:
        """Wait for the stream's next message; None is its end. Raises LimnerError."""
        message = await self._guard(self._rpc.read())
        return None if message is grpc.aio.EOF else message

    async def sleep(self, seconds: float) -> None:
        """Wait, but not past a cancellation."""
        await self._wait(self._cancelled, seconds)

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
        except grpc.aio.UsageError as error:
            raise cancelled(call, "the client is closed") from error

    async def _guard(self, wait: Awaitable[Any]) -> Any:
        """Wait for the server; a cancelled task cancels the call."""
        try:
            return await wait
        except grpc.RpcError as error:
            raise failed(error, self._call) from error
        except asyncio.CancelledError as error:
            if self._cancelled.is_set():  # by `cancel`, which grpc.aio also reports as a cancelled task
                raise cancelled(self._call) from error
            self.cancel()
            raise


class AsyncDriver(Generic[T]):
    """Carries a plan out, from event to event."""

    def __init__(self, plan: Plan[T], lane: AsyncLane) -> None:
        self._plan = plan
        self._lane = lane
        self.result: T | None = None

    async def advance(self) -> Event | None:
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
                        answer = await self._lane.unary(effect)
                    case Open():
                        self._lane.open(effect.call)
                    case Receive():
                        answer = await self._lane.receive()
                    case Sleep():
                        await self._lane.sleep(effect.seconds)
                    case Emit():
                        return effect.event
            except LimnerError as failure:
                error = failure

    async def run(self) -> T:
        """Run a plan that emits nothing, and give its result. Raises LimnerError."""
        await self.advance()
        return self.result  # type: ignore[return-value]  # set, now that the plan has ended

    def close(self) -> None:
        """Abandon the plan."""
        self._plan.close()


class AsyncPortraitStream:
    """Iterates over the events of a portrait that is being made; `Completed` is the last one.

    Leaving the `async with` block cancels what still runs, and so does cancelling the task that waits.
    """

    def __init__(self, start: Callable[[], Awaitable[tuple[Plan[None], AsyncLane]]]) -> None:
        self._start = start
        self._lane: AsyncLane | None = None
        self._driver: AsyncDriver[None] | None = None
        self._cancelled = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        if self._driver is None:
            plan, self._lane = await self._start()
            self._driver = AsyncDriver(plan, self._lane)
            if self._cancelled:
                self._lane.cancel()
        event = await self._driver.advance()
        if event is None:
            raise StopAsyncIteration
        return event

    def cancel(self) -> None:
        """Stop the generation: the iterating task gets `Cancelled`, and the server frees its rows."""
        self._cancelled = True
        if self._lane is not None:
            self._lane.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()
        if self._driver is not None:
            self._driver.close()
