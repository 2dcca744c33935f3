"""The scheduler: decides, between ticks, which rows run in the next one.

The engine's loop is schedule, run, complete::

    while tick := scheduler.next_tick():
        seconds = run(tick)
        for item in scheduler.complete(tick, seconds):
            finish(item)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice

from .costs import CostCurve
from .errors import Infeasible, InvalidJob, QueueFull
from .forecast import Estimate, Fullness, Landing, Underway, forecast
from .line import Flight, Line
from .packing import Packer
from .policy import Policy
from .snapshot import Snapshot
from .tick import Tick
from .work import Priority, WorkItem, check_job


class Scheduler:
    """Order the images in flight and pack them into ticks.

    `clock` is monotonic, in seconds. `buckets` are the batch sizes that the backend compiled. Holds no lock:
    one thread at a time owns it. Between `next_tick` and `complete` any other method may be called.

    Raises ValueError when `buckets` is empty or lacks the policy's deterministic bucket.
    """

    def __init__(
        self, clock: Callable[[], float], buckets: Sequence[int], costs: CostCurve, policy: Policy
    ) -> None:
        self._clock = clock
        self._costs = costs
        self._policy = policy
        self._packer = Packer(buckets, costs, policy.deterministic_bucket)
        self._line = Line()
        self._flights: dict[str, Flight] = {}
        self._latest: frozenset[Flight] = frozenset()
        self._fullness: Fullness | None = None
        """Of the latest tick, if it left images of its shape behind."""
        self._ends: float | None = None
        """When the tick that runs should end; None between ticks."""
        self._expired: list[WorkItem] = []
        self._arrivals = count()

    # The heart: one tick.

    def next_tick(self) -> Tick | None:
        """Return the next UNet call, None when nothing is in flight. Nothing advances until `complete`."""
        self._expire()
        self._ends = None
        if not self._line:
            return None
        group = self._line.front()
        packed = self._packer.pack(group)
        flights = group[: packed.images]
        for flight in flights:
            flight.started = True
        self._latest = frozenset(flights)
        tick = self._tick(packed.bucket, flights)
        self._fullness = self._fullness_after(tick, group[len(flights) :])
        self._ends = self._clock() + tick.expected_seconds
        return tick

    def begin(self, tick: Tick) -> None:
        """Note that a tick begins only now: its images were made ready first."""
        self._ends = self._clock() + tick.expected_seconds

    def complete(self, tick: Tick, seconds: float) -> tuple[WorkItem, ...]:
        """Advance the images of a tick that took `seconds`; return those that took their last step.

        Images that were cancelled or failed while the tick ran are passed over.
        """
        self._ends = None
        self._costs.observe(tick.shape, tick.bucket, seconds)
        finished = []
        for item, step in zip(tick.items, tick.steps, strict=True):
            flight = self._flights.get(item.id)
            if flight is None or flight.item is not item:
                continue
            assert flight.step == step, f"image {item.id} completes step {step}, {flight.step} is due"
            flight.step += 1
            if flight.step == item.steps:
                self._drop(flight)
                finished.append(item)
        return tuple(finished)

    def split(self, tick: Tick) -> tuple[Tick, ...]:
        """Return one tick for each image still in flight, to find the one whose rows made `tick` raise.

        `complete` those that run; `cancel` the jobs of those that raise. Until then nothing has advanced.
        """
        self._ends = None
        flights = [self._flights[item.id] for item in tick.items if item.id in self._flights]
        return tuple(self._tick(self._packer.bucket_alone(flight.item), [flight]) for flight in flights)

    def distrust(self, tick: Tick) -> None:
        """Form no more ticks like this one, which raised though each of its images runs by itself.

        From now on images of its shape share smaller buckets only.
        """
        self._packer.distrust(tick.shape, tick.bucket)

    # Coming and going.

    def submit(self, items: Sequence[WorkItem]) -> Estimate:
        """Admit all images of one job, or none of them; they may join the very next tick.

        Raises InvalidJob when the job can never run, QueueFull when too many images wait, and Infeasible
        when one of its images would miss its deadline.
        """
        flights = self._flights_for(items)
        self._check_room(len(items))
        # A line promises small, quick ticks towards its end; while more wait than run, others will fill them.
        landings = self._land(flights, fullness=self._fullness)
        self._check_deadlines(landings)
        if self._fullness is not None:
            landings = self._land(flights)
        estimate = Estimate.of(self._ahead_of(flights), landings)
        for flight in flights:
            self._line.add(flight)
            self._flights[flight.item.id] = flight
        return estimate

    def cancel(self, job_id: str) -> tuple[str, ...]:
        """Drop what is left of a job and return the ids of its images, none for an unknown job."""
        gone = [flight for flight in self._flights.values() if flight.item.job_id == job_id]
        for flight in gone:
            self._drop(flight)
        return tuple(flight.item.id for flight in gone)

    def fail(self, item_id: str) -> bool:
        """Drop one image whose rows cannot be run; return whether it was in flight."""
        flight = self._flights.get(item_id)
        if flight is not None:
            self._drop(flight)
        return flight is not None

    def take_expired(self) -> tuple[WorkItem, ...]:
        """Return the images that were dropped at their deadline, each once."""
        expired, self._expired = tuple(self._expired), []
        return expired

    # Looking ahead.

    def predict(self, items: Sequence[WorkItem]) -> Estimate:
        """Return what `submit` would now, whether or not it would refuse. Raises InvalidJob."""
        flights = self._flights_for(items)
        return Estimate.of(self._ahead_of(flights), self._land(flights))

    def estimates(self) -> dict[str, Estimate]:
        """Return the estimate of each job in flight, by job id, from one forecast for all."""
        landings: dict[str, list[Landing]] = {}
        for landing in self._forecast(self._line.copy()):
            landings.setdefault(landing.flight.item.job_id, []).append(landing)
        positions: dict[str, int] = {}
        ahead = 0
        for flight in self._line:
            positions.setdefault(flight.item.job_id, ahead)
            ahead += flight not in self._latest
        return {job_id: Estimate.of(position, landings[job_id]) for job_id, position in positions.items()}

    def snapshot(self) -> Snapshot:
        """Return the counts of what is in flight."""
        flights = self._flights.values()
        waiting = [flight for flight in flights if not flight.started]
        running = sum(flight in self._latest for flight in flights)
        oldest = min((flight.submitted for flight in waiting), default=self._clock())
        return Snapshot(
            waiting=len(waiting),
            running=running,
            preempted=len(flights) - len(waiting) - running,
            rows=sum(flight.item.rows_at(flight.step) for flight in flights),
            oldest_wait_seconds=self._clock() - oldest,
        )

    # Details.

    def _tick(self, bucket: int, flights: Sequence[Flight]) -> Tick:
        shape = flights[0].item.shape
        return Tick(
            shape=shape,
            bucket=bucket,
            items=tuple(flight.item for flight in flights),
            steps=tuple(flight.step for flight in flights),
            expected_seconds=self._costs.seconds(shape, bucket),
        )

    def _fullness_after(self, tick: Tick, waiting: Sequence[Flight]) -> Fullness | None:
        """Return how full ticks are while those wait whom this one has left behind."""
        if not waiting:
            return None
        priority = min(flight.item.priority for flight in waiting)
        known, bucket = self._fullness, tick.bucket
        if known is not None and known.shape == tick.shape and tick.items[0].priority < priority:
            # This bucket was chosen for others; of those who wait an earlier tick has told.
            bucket = known.bucket
        return Fullness(tick.shape, bucket, priority)

    def _drop(self, flight: Flight) -> None:
        self._line.remove(flight)
        del self._flights[flight.item.id]
        if not self._flights:
            self._fullness = None

    def _expire(self) -> None:
        now = self._clock()
        for flight in list(self._flights.values()):
            if flight.item.deadline is not None and flight.item.deadline <= now:
                self._drop(flight)
                self._expired.append(flight.item)

    def _flights_for(self, items: Sequence[WorkItem]) -> list[Flight]:
        """Make flights of a job that could be admitted as far as its form goes."""
        check_job(items)
        if any(item.id in self._flights for item in items):
            raise InvalidJob(f"job {items[0].job_id}: an image with its id is in flight")
        if len(items) > self._policy.max_waiting:
            raise InvalidJob(f"job {items[0].job_id}: more than {self._policy.max_waiting} images")
        for item in items:
            self._packer.bucket_alone(item)
        now = self._clock()
        aging = self._policy.aging_seconds
        return [
            Flight(
                item=item,
                place=(now + aging if item.priority is Priority.BATCH else now, next(self._arrivals)),
                submitted=now,
            )
            for item in items
        ]

    def _check_room(self, newcomers: int) -> None:
        waiting = sum(not flight.started for flight in self._flights.values())
        excess = waiting + newcomers - self._policy.max_waiting
        if excess > 0:
            # Each image that finishes lets about one that waits begin.
            landings = islice(self._forecast(self._line.copy()), excess)
            *_, last = landings
            raise QueueFull(limit=self._policy.max_waiting, retry_after=last.finishes_in)

    def _check_deadlines(self, landings: Sequence[Landing]) -> None:
        now, headroom = self._clock(), self._policy.headroom
        for landing in landings:
            deadline = landing.flight.item.deadline
            predicted = now + headroom * landing.finishes_in
            if deadline is not None and predicted > deadline:
                alone = Line()
                for mine in landings:
                    alone.add(mine.flight)
                least = headroom * max(landing.finishes_in for landing in self._forecast(alone, idle=True))
                if not self._flights:
                    self._costs.doubt(landing.flight.item.shape)
                raise Infeasible(predicted_finish=predicted, deadline=deadline, least_seconds=least)

    def _forecast(
        self, line: Line, *, idle: bool = False, fullness: Fullness | None = None
    ) -> Iterator[Landing]:
        underway = None
        if self._ends is not None and not idle:
            underway = Underway(flights=self._latest, remaining=max(0.0, self._ends - self._clock()))
        finish = self._policy.finish_seconds
        return forecast(line, self._packer, self._costs, finish, underway, fullness)

    def _land(self, newcomers: Sequence[Flight], *, fullness: Fullness | None = None) -> list[Landing]:
        """Forecast flights as if they had been admitted now, no further than to the last of them."""
        line = self._line.copy()
        for flight in newcomers:
            line.add(flight)
        mine = {flight.item.id for flight in newcomers}
        landings = self._forecast(line, fullness=fullness)
        return list(islice((landing for landing in landings if landing.flight.item.id in mine), len(mine)))

    def _ahead_of(self, newcomers: Sequence[Flight]) -> int:
        first = min(flight.place for flight in newcomers)
        return sum(flight.place < first and flight not in self._latest for flight in self._flights.values())
