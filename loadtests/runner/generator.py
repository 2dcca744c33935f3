"""The generator: sends a plan's requests when they are due, whatever became of those before."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import msgspec

from loadtests.runner.plan import Plan
from loadtests.runner.record import Record, record
from loadtests.runner.request import PlannedRequest
from loadtests.runner.scenario import Closed
from loadtests.runner.target import Outcome, Status, Target

DRAIN_SECONDS = 60.0
LEAST_DEADLINE_SECONDS = 0.001
"""Of a request that is sent when its deadline has passed: a target may take 0 for none."""


class _ClosedLoop:
    """The callers of a closed stream, a lock for each: in its next turn it may still wait for an answer of the last."""

    def __init__(self, name: str, arrivals: Closed) -> None:
        self.name = name
        self.think = arrivals.think
        self.seats = [asyncio.Lock() for _ in range(arrivals.concurrency)]


class Generator:
    """Drives one plan against one target, once. Its clock is the event loop's."""

    def __init__(
        self,
        plan: Plan,
        target: Target,
        *,
        on_record: Callable[[Record], None] = lambda record: None,
        drain_seconds: float = DRAIN_SECONDS,
    ) -> None:
        self._plan = plan
        self._target = target
        self._on_record = on_record
        self._drain_seconds = drain_seconds
        self._calls: set[asyncio.Task[None]] = set()
        self._loads: list[asyncio.Task[None]] = []
        self._begin = 0.0
        self.sent = 0
        self.in_flight = 0
        self.records: list[Record] = []
        self.notes: list[str] = []

    @property
    def now(self) -> float:
        """Seconds since the start of the load."""
        return asyncio.get_running_loop().time() - self._begin

    def stop(self) -> None:
        """Send nothing more; what is in flight is still waited for."""
        self.notes.append(f"stopped by hand after {self.now:.0f} s")
        for load in self._loads:
            load.cancel()

    async def run(self, begins_in: float = 0.0) -> list[Record]:
        """Send everything and return the records in the order of their ends. A fault of the target's code is raised.

        The load begins in so many seconds from now.
        """
        self._begin = asyncio.get_running_loop().time() + begins_in
        loops = {
            stream.name: _ClosedLoop(stream.name, stream.arrivals)
            for stream in self._plan.scenario.streams
            if isinstance(stream.arrivals, Closed)
        }
        opened: list[PlannedRequest] = []
        closed: dict[tuple[str, str, int], list[PlannedRequest]] = defaultdict(list)
        for request in self._plan.requests:
            if request.stream in loops:
                closed[request.stream, request.phase, request.turn].append(request)
            else:
                opened.append(request)
        self._loads = [asyncio.create_task(self._open(opened))]
        turns = self._plan.scenario.turns()
        for (stream, phase, turn), requests in closed.items():
            self._loads += self._callers(loops[stream], turns[phase][turn], requests)
        try:
            await self._settle(self._loads, None)
            await self._settle(self._calls, self._drain_seconds)
        finally:
            left = {task for task in (*self._loads, *self._calls) if not task.done()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        return self.records

    async def _settle(
        self, tasks: Sequence[asyncio.Task[None]] | set[asyncio.Task[None]], limit: float | None
    ) -> None:
        """Wait until all of them are done, but not longer than the limit. Raises what one of them raised."""
        if not tasks:
            return
        done, _ = await asyncio.wait(tasks, timeout=limit, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def _open(self, requests: Sequence[PlannedRequest]) -> None:
        for request in requests:
            # Also where it is late: the calls in flight need their turn.
            await asyncio.sleep(max(0.0, request.at - self.now))
            call = asyncio.create_task(self._call(request, due=request.at))
            self._calls.add(call)
            call.add_done_callback(self._ended)

    def _ended(self, call: asyncio.Task[None]) -> None:
        # One that failed stays, so that `_settle` raises what it raised.
        if call.cancelled() or call.exception() is None:
            self._calls.discard(call)

    def _callers(
        self, loop: _ClosedLoop, turn: tuple[float, float], requests: Sequence[PlannedRequest]
    ) -> Iterator[asyncio.Task[None]]:
        left = iter(requests)
        for seat in loop.seats:
            yield asyncio.create_task(self._caller(loop, seat, turn, left))

    async def _caller(
        self,
        loop: _ClosedLoop,
        seat: asyncio.Lock,
        turn: tuple[float, float],
        requests: Iterator[PlannedRequest],
    ) -> None:
        begin, end = turn
        await asyncio.sleep(max(0.0, begin - self.now))
        async with seat:
            while self.now < end:
                request = next(requests, None)
                if request is None:
                    self.notes.append(f"{loop.name}: a caller had no more requests after {self.now:.1f} s")
                    return
                # In a task of its own, so that `stop` ends the caller and not its call.
                call = asyncio.create_task(self._call(request, due=self.now))
                self._calls.add(call)
                call.add_done_callback(self._ended)
                await asyncio.shield(call)
                await asyncio.sleep(loop.think)

    async def _call(self, request: PlannedRequest, due: float) -> None:
        sent = self.now
        self.sent += 1
        self.in_flight += 1
        late = sent - due
        patience = None if request.cancel_after is None else max(0.0, request.cancel_after - late)
        try:
            async with asyncio.timeout(patience) as limit:
                outcome = await self._target.call(_as_sent(request, late))
        except TimeoutError:
            if not limit.expired():
                raise
            outcome = Outcome(status=Status.CANCELLED, reason="CANCELLED")
        except asyncio.CancelledError:
            outcome = Outcome(status=Status.UNFINISHED, reason="UNFINISHED")
        finally:
            self.in_flight -= 1
        done = record(request, outcome, due=due, sent=sent, done=self.now)
        self.records.append(done)
        self._on_record(done)


def _as_sent(request: PlannedRequest, late: float) -> PlannedRequest:
    """Return a request with what is left of its deadline."""
    if request.deadline is None:
        return request
    return msgspec.structs.replace(request, deadline=max(LEAST_DEADLINE_SECONDS, request.deadline - late))
