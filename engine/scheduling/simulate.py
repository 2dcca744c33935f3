"""Virtual time: run the production scheduler against a list of events and a cost curve, in no time at all."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from .costs import CostCurve
from .errors import SchedulingError
from .forecast import Estimate
from .policy import Policy
from .scheduler import Scheduler
from .tick import Tick
from .work import WorkItem


class VirtualClock:
    """Tell the time that the simulation has come to, in seconds from 0; time passes by `advance` only."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        """Return the time, in seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        assert seconds >= 0, "time does not run backwards"
        self._now += seconds

    def advance_to(self, moment: float) -> None:
        """Let time pass until `moment`, if that is still to come."""
        self._now = max(self._now, moment)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """Submit a job (`items` share its id) at a moment of virtual time, in seconds."""

    at: float
    items: tuple[WorkItem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancellation:
    """Cancel a job at a moment of virtual time, in seconds."""

    at: float
    job_id: str


class Outcome(Enum):
    """How an image ended."""

    FINISHED = "finished"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    REFUSED = "refused"


@dataclass(slots=True, kw_only=True)
class Record:
    """Tell what became of one image. Times are absolute, in seconds; None for what did not happen.

    `submitted` is when it arrived, `admitted` when the scheduler saw it.
    """

    item: WorkItem
    submitted: float
    admitted: float | None = None
    promised: Estimate | None = None
    refusal: SchedulingError | None = None
    started: float | None = None
    ended: float | None = None
    ticks: int = 0
    outcome: Outcome | None = None

    @property
    def latency(self) -> float:
        """Return the seconds from submission to the end."""
        assert self.ended is not None, f"image {self.item.id} has not ended"
        return self.ended - self.submitted


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """Tell when a tick began and how many seconds it took."""

    at: float
    tick: Tick
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """Hold what happened: `records` by image id, `ticks` in order, `seconds` until the last event."""

    records: dict[str, Record]
    ticks: tuple[Ran, ...]
    seconds: float


def simulate(
    events: Iterable[Arrival | Cancellation],
    *,
    buckets: Sequence[int],
    costs: CostCurve,
    policy: Policy,
    tick_seconds: Callable[[Tick], float] | None = None,
) -> Simulation:
    """Run events, in order of their time, through a new Scheduler until nothing is in flight.

    Ticks take `tick_seconds(tick)`, by default what the cost curve expects; each finished image
    then holds the engine for `policy.finish_seconds`, as in the engine's loop. Arrivals are looked at while a tick
    runs, cancellations and what comes after one between ticks, as they are there.
    """
    clock = VirtualClock()
    scheduler = Scheduler(clock, buckets, costs, policy)
    records: dict[str, Record] = {}
    ticks: list[Ran] = []
    pending = deque(sorted(events, key=lambda event: event.at))

    def end(item_id: str, outcome: Outcome) -> None:
        records[item_id].outcome, records[item_id].ended = outcome, clock()

    while True:
        while pending and pending[0].at <= clock():
            event = pending.popleft()
            if isinstance(event, Cancellation):
                for item_id in scheduler.cancel(event.job_id):
                    end(item_id, Outcome.CANCELLED)
            else:
                _submit(scheduler, event, records, clock())
        tick = scheduler.next_tick()
        for item in scheduler.take_expired():
            end(item.id, Outcome.EXPIRED)
        if tick is None:
            if not pending:
                return Simulation(records=records, ticks=tuple(ticks), seconds=clock())
            clock.advance_to(pending[0].at)
            continue
        seconds = tick_seconds(tick) if tick_seconds else tick.expected_seconds
        ticks.append(Ran(at=clock(), tick=tick, seconds=seconds))
        for item in tick.items:
            record = records[item.id]
            record.started = clock() if record.started is None else record.started
            record.ticks += 1
        ended = clock() + seconds
        while pending and isinstance(arrival := pending[0], Arrival) and arrival.at < ended:
            pending.popleft()
            clock.advance_to(arrival.at)
            _submit(scheduler, arrival, records, clock())
        clock.advance_to(ended)
        for item in scheduler.complete(tick, seconds):
            clock.advance(policy.finish_seconds)
            end(item.id, Outcome.FINISHED)


def _submit(scheduler: Scheduler, arrival: Arrival, records: dict[str, Record], now: float) -> None:
    """Submit a job; a record counts from `arrival.at`, so a wait for the scheduler is in it."""
    new = {item.id: Record(item=item, submitted=arrival.at) for item in arrival.items}
    assert not new.keys() & records.keys(), "image ids are unique in a simulation"
    records.update(new)
    try:
        promised = scheduler.submit(arrival.items)
    except SchedulingError as refusal:
        for record in new.values():
            record.refusal, record.outcome, record.ended = refusal, Outcome.REFUSED, now
    else:
        for record in new.values():
            record.promised, record.admitted = promised, now
