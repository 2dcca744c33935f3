"""What holds for every load: random arrivals, priorities, deadlines, cancels, shapes, buckets, costs.

Each property reads the log of a simulation, which runs the production scheduler in virtual time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.scheduling import CostCurve, Infeasible, Policy, Priority, Scheduler, Tick, WorkItem
from engine.scheduling.simulate import (
    Arrival,
    Cancellation,
    Outcome,
    Ran,
    Record,
    Simulation,
    VirtualClock,
    simulate,
)

few = settings(max_examples=40, deadline=None)  # a shared machine may stall for longer than any deadline

SHAPES = ((4, 8, 8), (4, 16, 8), (4, 16, 16))


@dataclass(frozen=True)
class World:
    buckets: tuple[int, ...]
    costs: CostCurve
    policy: Policy
    events: tuple[Arrival | Cancellation, ...]
    noise: tuple[float, ...]

    def run(self) -> Simulation:
        factors = iter(self.noise * 10_000)
        return simulate(
            self.events,
            buckets=self.buckets,
            costs=self.costs,
            policy=self.policy,
            tick_seconds=lambda tick: tick.expected_seconds * next(factors),
        )


@st.composite
def worlds(draw: st.DrawFn, *, static: bool = False) -> World:
    """Draw a world; in a static one jobs arrive at once, have no deadline, and no tick is late."""
    deterministic_bucket = draw(st.sampled_from((2, 4, 8)))
    buckets = draw(st.sets(st.sampled_from((1, 2, 3, 4, 6, 8, 16)), min_size=1)) | {deterministic_bucket}
    seconds = st.floats(0.001, 1.0)
    costs = {
        shape: {
            bucket: draw(seconds)
            for bucket in sorted(draw(st.sets(st.sampled_from(sorted(buckets)), min_size=1)))
        }
        for shape in draw(st.lists(st.sampled_from(SHAPES), min_size=1, unique=True))
    }
    events: list[Arrival | Cancellation] = []
    for number in range(draw(st.integers(1, 16))):
        at = 0.0 if static else draw(st.floats(0.0, 3.0))
        deadline = None if static else draw(st.none() | st.floats(at + 0.05, at + 20.0))
        events.append(Arrival(at=at, items=draw(_job(f"job-{number}", deadline))))
        if not static and draw(st.integers(0, 4)) == 0:
            events.append(Cancellation(at=at + draw(st.floats(0.0, 4.0)), job_id=f"job-{number}"))
    return World(
        buckets=tuple(sorted(buckets)),
        costs=CostCurve(costs),
        policy=Policy(
            deterministic_bucket=deterministic_bucket,
            max_waiting=draw(st.integers(4, 40)),
            aging_seconds=draw(st.floats(0.0, 6.0)),
            headroom=draw(st.floats(1.0, 1.5)),
            finish_seconds=draw(st.sampled_from((0.0, 0.05))),
        ),
        events=tuple(events),
        noise=(1.0,) if static else tuple(draw(st.lists(st.floats(0.5, 4.0), min_size=1, max_size=5))),
    )


@st.composite
def _job(draw: st.DrawFn, job_id: str, deadline: float | None) -> tuple[WorkItem, ...]:
    shape, priority = draw(st.sampled_from(SHAPES)), draw(st.sampled_from(Priority))
    return tuple(
        WorkItem(
            id=f"{job_id}/{number}",
            job_id=job_id,
            steps=draw(st.integers(1, 8)),
            rows=draw(st.sampled_from((1, 2))),
            shape=shape,
            priority=priority,
            deadline=deadline,
            deterministic=draw(st.integers(0, 5)) == 0,
            guided_steps=draw(st.none() | st.builds(range, st.integers(0, 4), st.integers(0, 9))),
        )
        for number in range(draw(st.integers(1, 4)))
    )


def in_flight(simulation: Simulation, moment: float) -> list[Record]:
    """Return what could run at a moment, in order of admission; `records` keep that order."""
    return [
        record
        for record in simulation.records.values()
        if record.admitted is not None
        and record.ended is not None
        and record.admitted <= moment < record.ended
    ]


def left_out(simulation: Simulation) -> Iterator[tuple[Ran, list[Record], list[Record]]]:
    """Yield each tick with those that ran in it and those of the same shape that could have."""
    for ran in simulation.ticks:
        chosen = {item.id for item in ran.tick.items}
        able = [r for r in in_flight(simulation, ran.at) if r.item.shape == ran.tick.shape]
        yield ran, [r for r in able if r.item.id in chosen], [r for r in able if r.item.id not in chosen]


def place(record: Record, policy: Policy) -> float:
    """Say where an image stands in line, from the rule in the policy's docstring."""
    assert record.admitted is not None
    return record.admitted + (policy.aging_seconds if record.item.priority is Priority.BATCH else 0.0)


@few
@given(worlds())
def test_every_admitted_image_ends_and_a_finished_one_ran_exactly_its_steps(world: World) -> None:
    simulation = world.run()
    for record in simulation.records.values():
        assert record.outcome is not None
        if record.outcome is Outcome.FINISHED:
            assert record.ticks == record.item.steps
        elif record.outcome is Outcome.EXPIRED:
            assert record.item.deadline is not None
        assert (record.outcome is Outcome.REFUSED) == (record.refusal is not None)


@few
@given(worlds())
def test_steps_are_taken_one_after_the_other(world: World) -> None:
    due: dict[str, int] = {}
    for ran in world.run().ticks:
        for item, step in zip(ran.tick.items, ran.tick.steps, strict=True):
            assert step == due.get(item.id, 0)
            due[item.id] = step + 1


@few
@given(worlds())
def test_no_bucket_is_overfilled_and_no_image_is_split_or_doubled(world: World) -> None:
    for ran in world.run().ticks:
        tick = ran.tick
        assert tick.bucket in world.buckets
        assert 1 <= tick.rows <= tick.bucket
        assert tick.rows == sum(
            2 if item.rows == 2 and (item.guided_steps is None or step in item.guided_steps) else 1
            for item, step in zip(tick.items, tick.steps, strict=True)
        )
        assert len({item.id for item in tick.items}) == len(tick.items)
        assert {item.shape for item in tick.items} == {tick.shape}


@few
@given(worlds())
def test_deterministic_images_always_run_in_their_bucket(world: World) -> None:
    for ran in world.run().ticks:
        if any(item.deterministic for item in ran.tick.items):
            assert ran.tick.bucket == world.policy.deterministic_bucket


@few
@given(worlds())
def test_nothing_runs_past_its_deadline_or_after_it_was_cancelled(world: World) -> None:
    simulation = world.run()
    for ran in simulation.ticks:
        for item in ran.tick.items:
            record = simulation.records[item.id]
            assert item.deadline is None or ran.at < item.deadline
            assert record.ended is not None
            assert ran.at < record.ended


@few
@given(worlds())
def test_the_first_in_line_is_in_every_tick_so_nobody_starves(world: World) -> None:
    simulation = world.run()
    for ran in simulation.ticks:
        first = min(in_flight(simulation, ran.at), key=lambda record: place(record, world.policy))
        assert first.item.id in {item.id for item in ran.tick.items}


@few
@given(worlds())
def test_order_within_a_priority_is_kept(world: World) -> None:
    for _, chosen, waiting in left_out(world.run()):
        for priority in Priority:
            admitted = [place(r, world.policy) for r in chosen if r.item.priority is priority]
            passed_over = [place(r, world.policy) for r in waiting if r.item.priority is priority]
            if admitted and passed_over:
                assert max(admitted) <= min(passed_over)


@few
@given(worlds())
def test_batch_never_goes_before_interactive_unless_it_came_of_age(world: World) -> None:
    for _, chosen, waiting in left_out(world.run()):
        for late in waiting:
            for other in chosen:
                assert place(other, world.policy) <= place(late, world.policy)


@few
@given(worlds())
def test_a_tick_leaves_no_room_that_the_next_in_line_could_use(world: World) -> None:
    taken: Counter[str] = Counter()
    for ran, _, waiting in left_out(world.run()):
        if waiting:
            following = min(waiting, key=lambda record: place(record, world.policy)).item
            fits = ran.tick.rows + following.rows_at(taken[following.id]) <= ran.tick.bucket
            allowed = ran.tick.bucket == world.policy.deterministic_bucket or not following.deterministic
            assert not (fits and allowed)
        taken.update(item.id for item in ran.tick.items)


@few
@given(worlds())
def test_the_engine_is_never_idle_while_something_could_run(world: World) -> None:
    simulation = world.run()
    for before, after in pairwise(simulation.ticks):
        finished = sum(
            record.outcome is Outcome.FINISHED and before.at < record.ended <= after.at  # type: ignore[operator]
            for record in simulation.records.values()
        )
        free = before.at + before.seconds + finished * world.policy.finish_seconds
        if after.at > free + 1e-9:
            assert in_flight(simulation, free + 1e-9) == []


@few
@given(worlds())
def test_admission_admits_exactly_what_it_predicts_to_be_in_time(world: World) -> None:
    for record in world.run().records.values():
        deadline = record.item.deadline
        if isinstance(record.refusal, Infeasible):
            assert record.refusal.predicted_finish > record.refusal.deadline
        elif record.promised is not None and deadline is not None:
            assert record.admitted is not None
            assert record.admitted + world.policy.headroom * record.promised.finishes_in <= deadline


@few
@given(worlds(static=True))
def test_predictions_are_exact_while_nothing_else_arrives(world: World) -> None:
    clock = VirtualClock()
    scheduler = Scheduler(clock, world.buckets, world.costs, world.policy)
    for event in world.events:
        if (
            isinstance(event, Arrival)
            and scheduler.snapshot().waiting + len(event.items) <= world.policy.max_waiting
        ):
            last = scheduler.submit(event.items), event.items[0].job_id
    predicted = scheduler.estimates()
    assert predicted[last[1]] == last[0]
    simulation = world.run()
    for job_id, estimate in predicted.items():
        images = [record for record in simulation.records.values() if record.item.job_id == job_id]
        assert estimate.starts_in == pytest.approx(min(r.started for r in images))  # type: ignore[type-var]
        assert estimate.finishes_in == pytest.approx(max(r.ended for r in images))  # type: ignore[type-var]


@few
@given(worlds(static=True), st.integers(1, 20))
def test_predictions_are_exact_from_any_point_of_the_way(world: World, ticks: int) -> None:
    clock = VirtualClock()
    scheduler = Scheduler(clock, world.buckets, world.costs, world.policy)
    arrival = world.events[0]
    assert isinstance(arrival, Arrival)
    scheduler.submit(arrival.items)

    def run() -> None:
        tick = scheduler.next_tick()
        if tick is not None:
            clock.advance(tick.expected_seconds)
            finished = scheduler.complete(tick, tick.expected_seconds)
            clock.advance(world.policy.finish_seconds * len(finished))

    for _ in range(ticks):
        run()
    expected = {job_id: clock() + e.finishes_in for job_id, e in scheduler.estimates().items()}
    while scheduler.snapshot().rows:
        run()
    assert all(finish == pytest.approx(clock()) for finish in expected.values())


@few
@given(worlds(static=True), st.integers(0, 20), st.floats(0, 1))
def test_predictions_are_exact_while_a_tick_runs(world: World, ticks: int, share: float) -> None:
    """A job that comes in the middle of a tick does not join it, and counts what is left of it."""
    clock = VirtualClock()
    scheduler = Scheduler(clock, world.buckets, world.costs, world.policy)
    arrivals = [event for event in world.events if isinstance(event, Arrival)]
    first, last = arrivals[0], arrivals[-1]
    ended: dict[str, float] = {}

    def complete(tick: Tick) -> None:
        for item in scheduler.complete(tick, tick.expected_seconds):
            clock.advance(world.policy.finish_seconds)
            ended[item.job_id] = clock()

    def run() -> None:
        tick = scheduler.next_tick()
        if tick is not None:
            clock.advance(tick.expected_seconds)
            complete(tick)

    scheduler.submit(first.items)
    for _ in range(ticks):
        run()
    tick = scheduler.next_tick()
    room = world.policy.max_waiting - scheduler.snapshot().waiting
    if tick is None or first is last or len(last.items) > room:
        return
    clock.advance(share * tick.expected_seconds)
    scheduler.submit(last.items)
    expected = {job_id: clock() + e.finishes_in for job_id, e in scheduler.estimates().items()}
    assert scheduler.estimates()[last.items[0].job_id].starts_in >= 0
    clock.advance((1 - share) * tick.expected_seconds)
    complete(tick)
    while scheduler.snapshot().rows:
        run()
    for job_id, finish in expected.items():
        assert finish == pytest.approx(ended[job_id])


@few
@given(worlds(), st.data())
def test_anything_may_happen_between_the_start_and_the_end_of_a_tick(
    world: World, data: st.DataObject
) -> None:
    """Cancel, fail, split and abandon ticks at random, against a model that only counts steps."""
    clock = VirtualClock()
    scheduler = Scheduler(clock, world.buckets, world.costs, world.policy)
    left: dict[str, int] = {}

    def complete(tick: Tick) -> None:
        live = [item.id for item in tick.items if item.id in left]
        finished = {item.id for item in scheduler.complete(tick, tick.expected_seconds)}
        for item_id in live:
            left[item_id] -= 1
            assert (left[item_id] == 0) == (item_id in finished)
        for item_id in finished:
            del left[item_id]

    arrivals = [event.items for event in world.events if isinstance(event, Arrival)]
    while arrivals or left:
        if arrivals and len(left) + len(arrivals[-1]) <= world.policy.max_waiting:
            job = [  # without deadlines: admission and expiry have properties of their own
                WorkItem(
                    id=i.id,
                    job_id=i.job_id,
                    steps=i.steps,
                    rows=i.rows,
                    shape=i.shape,
                    priority=i.priority,
                    guided_steps=i.guided_steps,
                )
                for i in arrivals.pop()
            ]
            scheduler.submit(job)
            left |= {item.id: item.steps for item in job}
        tick = scheduler.next_tick()
        assert tick is not None
        assert {item.id for item in tick.items} <= left.keys()
        victim = tick.items[0]
        match data.draw(st.sampled_from(("complete", "complete", "abandon", "cancel", "fail", "split"))):
            case "complete":
                complete(tick)
            case "cancel":
                for item_id in scheduler.cancel(victim.job_id):
                    del left[item_id]
                complete(tick)
            case "fail":
                assert scheduler.fail(victim.id)
                del left[victim.id]
                complete(tick)
            case "split":
                assert [single.items for single in scheduler.split(tick)] == [(item,) for item in tick.items]
                for single in scheduler.split(tick):
                    complete(single)
        snapshot = scheduler.snapshot()
        assert snapshot.waiting + snapshot.running + snapshot.preempted == len(left)
        assert min(snapshot.waiting, snapshot.running, snapshot.preempted) >= 0
    assert scheduler.next_tick() is None
