"""Scenarios, requests and records for tests, and an event loop whose time passes by itself."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

import msgspec

from loadtests.peers.ask import Ask
from loadtests.runner.plan import Plan, Speed, make_plan
from loadtests.runner.record import Record
from loadtests.runner.report import Machine, Report, all_figures, judge
from loadtests.runner.request import PlannedRequest
from loadtests.runner.scenario import Mix, Phase, Poisson, Scenario, Stream
from loadtests.runner.target import Outcome, Stages, Status
from loadtests.runner.watch import Sample

T = TypeVar("T")

SPEED = Speed(capacity=10.0, unloaded=0.5)
ASK = Ask(
    prompt="a portrait",
    reference="0",
    steps=2,
    guidance_scale=5.0,
    sampler="ddim",
    ip_adapter_scale=1.0,
    seed=0,
)


def scenario(*streams: Stream, seconds: float = 100.0, **more: Any) -> Scenario:
    return Scenario(name="test", about="A test.", seconds=seconds, streams=streams, **more)


def stream(name: str = "callers", arrivals: Any = None, **mix: Any) -> Stream:
    return Stream(name=name, arrivals=arrivals or Poisson(per_second=5.0), mix=Mix(**mix))


def plan(*streams: Stream, seed: int = 0, speed: Speed = SPEED, **more: Any) -> Plan:
    return make_plan(scenario(*streams, **more), seed, speed)


def answer(number: int, *, due: float, latency: float, **more: Any) -> Record:
    """A request that was sent when it was due and answered so much later."""
    told = {"stream": "callers", "phase": "load", "sent": due, "status": Status.OK, "images": 1, "steps": 20}
    return Record(number=number, due=due, done=due + latency, **(told | more))


def report(
    records: Iterable[Record],
    *,
    samples: Iterable[Sample] = (),
    of: Scenario | None = None,
    calibrated: bool = True,
) -> Report:
    of = of or scenario(stream(), seconds=10.0, phases=(Phase(name="load"),))
    given, taken = tuple(records), tuple(samples)
    table = all_figures(of, SPEED, given, taken)
    return Report(
        scenario=of,
        seed=0,
        target="nowhere",
        started="2026-01-01T00:00:00+00:00",
        seconds=of.seconds,
        speed=SPEED,
        calibrated=calibrated,
        slo_seconds=SPEED.seconds(of.slo),
        machine=Machine(cpus=2, system="test", python="3"),
        figures=table,
        judgements=tuple(judge(one, table, of, SPEED) for one in of.expect),
        notes=(),
        samples=taken,
        records=given,
    )


def busy_report() -> Report:
    """A report that has some of everything."""
    records = []
    for number in range(40):
        due = number * 0.25
        hit = number % 4 != 0
        records.append(
            answer(
                number,
                due=due,
                latency=0.5 + 0.01 * number,
                cache="hit" if hit else "miss",
                person=number % 8,
                batch_rows=4.0,
                stages=Stages(queue=0.1, denoise=0.3, total=0.45),
            )
        )
    refused = {"status": Status.REFUSED, "reason": "OVERLOADED", "retry_after": 1.0, "images": 0}
    records += [answer(40 + number, due=number, latency=0.002, **refused) for number in range(8)]
    values = {"server_memory": 1e8, "engine_memory": 7e8}
    samples = [
        Sample(at=at, values={**values, "rows_useful": 90.0 * at, "rows_padded": 10.0 * at, "encodes": at})
        for at in map(float, range(12))
    ]
    return report(records, samples=samples)


class PassingTime(selectors.SelectSelector):
    """Waits for nothing: time jumps to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time. `stall` lets time pass without a turn, as a busy processor does."""

    def __init__(self) -> None:
        self._passing = PassingTime()
        super().__init__(self._passing)

    def time(self) -> float:
        return self._passing.now

    def stall(self, seconds: float) -> None:
        self._passing.now += seconds


def in_virtual_time(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work())


class Queueing:
    """A target with so many servers, each of which takes the same time for a request."""

    def __init__(self, seconds: float, servers: int = 1) -> None:
        self.seconds = seconds
        self.free = asyncio.Semaphore(servers)
        self.calls: list[PlannedRequest] = []
        self.people: list[int] = []

    async def prepare(self, people: Iterable[int]) -> None:
        self.people += people

    async def call(self, request: PlannedRequest) -> Outcome:
        self.calls.append(request)
        async with self.free:
            await asyncio.sleep(self.seconds)
        return Outcome(status=Status.OK, images=request.images)


class Stalling(Queueing):
    """Lets time pass without a turn of the loop, once: in the first call that `when` tells."""

    def __init__(
        self, seconds: float, *, stall: float, when: Callable[[PlannedRequest], bool], servers: int = 1
    ) -> None:
        super().__init__(seconds, servers)
        self._stall = stall
        self._when = when

    async def call(self, request: PlannedRequest) -> Outcome:
        if self._stall and self._when(request):
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualLoop)
            loop.stall(self._stall)
            self._stall = 0.0
        return await super().call(request)


def replaced(one: PlannedRequest, **changes: Any) -> PlannedRequest:
    return msgspec.structs.replace(one, **changes)
