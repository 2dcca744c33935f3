"""What is admitted, what is refused and why, with a crowd or without; checks of form."""

from __future__ import annotations

from typing import Any

import pytest

from engine.scheduling import (
    Infeasible,
    InvalidJob,
    Policy,
    Priority,
    QueueFull,
    Scheduler,
    WorkItem,
)

from .builders import HALVING, LARGE, Bench, batch_image, image


def test_submit_says_what_will_happen() -> None:
    bench = Bench(buckets=(1,), deterministic_bucket=1, finish_seconds=0.5)
    bench.submit(image(steps=4))
    estimate = bench.scheduler.submit([image(steps=2)])
    assert (estimate.position, estimate.starts_in, estimate.finishes_in) == (1, 4.5, 7.0)


def test_a_job_is_admitted_whole_or_not_at_all() -> None:
    bench = Bench(buckets=(1,), deterministic_bucket=1)
    with pytest.raises(Infeasible) as refusal:
        bench.scheduler.submit([image("a1", job="a", deadline=4.0), image("a2", job="a", deadline=5.0)])
    assert (refusal.value.predicted_finish, refusal.value.deadline) == (6.0, 5.0)
    assert bench.scheduler.next_tick() is None


def test_a_refusal_says_what_the_job_would_take_on_an_idle_engine() -> None:
    bench = Bench(buckets=(1,), deterministic_bucket=1, headroom=1.5, finish_seconds=0.5)
    bench.submit(image(steps=100))
    with pytest.raises(Infeasible) as refusal:
        bench.scheduler.submit([image("a1", job="a", deadline=20.0), image("a2", job="a", deadline=20.0)])
    assert refusal.value.least_seconds == pytest.approx(1.5 * 2 * 3.5)


def crowded() -> Bench:
    """Eight run for 9 more ticks of 2.4 s, and one of 10 steps waits."""
    bench = Bench()
    bench.submit(*(image(job="crowd" if number else "first", steps=10) for number in range(9)))
    bench.run()
    return bench


def test_while_more_wait_than_run_the_engine_is_taken_to_stay_as_full_as_it_is() -> None:
    bench = crowded()
    now = bench.clock()
    with pytest.raises(Infeasible) as refusal:
        bench.submit(image(steps=10, deadline=now + 45.0))
    assert refusal.value.predicted_finish == pytest.approx(now + 21.6 + 10 * 2.4)
    estimate = bench.scheduler.submit([image(steps=10, deadline=now + 46.0)])
    assert estimate.finishes_in == pytest.approx(21.6 + 10 * 1.2)  # told as it is if nobody else arrives


def test_who_comes_while_a_tick_runs_that_has_room_finds_no_crowd() -> None:
    bench = Bench()
    bench.submit(*(image(steps=1) for _ in range(8)))
    bench.tick()
    bench.submit(image(steps=10))
    bench.submit(image(steps=10, deadline=bench.clock() + 2.4 + 12.5))


def test_a_crowd_of_one_size_says_nothing_about_another() -> None:
    bench = crowded()
    now = bench.clock()
    # The ticks of the waiting one are full to the end, and then come ten of four times its cost alone.
    bench.submit(image(steps=10, shape=LARGE, deadline=now + 21.6 + 24.0 + 40.0))


def test_a_crowd_does_not_fill_the_ticks_of_deterministic_images() -> None:
    bench = crowded()
    bench.submit(image(steps=10, deterministic=True, deadline=bench.clock() + 21.6 + 16.0))


def crowded_by_batch() -> Bench:
    """Eight batch images run for 9 more ticks of 2.4 s, and two of 10 steps wait."""
    bench = Bench()
    bench.submit(*(batch_image(steps=10) for _ in range(10)))
    bench.run()
    return bench


def test_a_crowd_of_batch_images_does_not_fill_the_ticks_of_an_interactive_one() -> None:
    bench = crowded_by_batch()
    bench.submit(image("i", steps=10, deadline=bench.clock() + 10.0))
    assert bench.run_until("i") == 10
    assert bench.clock() == pytest.approx(2.4 + 10.0)


def test_it_fills_those_of_batch_images_though_an_interactive_one_has_the_latest() -> None:
    bench = crowded_by_batch()
    bench.submit(image("i", steps=3))
    bench.run()
    now = bench.clock()
    with pytest.raises(Infeasible) as refusal:
        bench.submit(image(steps=10, priority=Priority.BATCH, deadline=now + 10.0))
    assert refusal.value.predicted_finish == pytest.approx(now + 2 * 1.0 + 9 * 2.4 + 10 * 2.4)


def test_a_crowd_of_interactive_images_fills_all_ticks() -> None:
    bench = crowded()
    now = bench.clock()
    with pytest.raises(Infeasible) as refusal:
        bench.submit(image(steps=10, priority=Priority.BATCH, deadline=now + 10.0))
    assert refusal.value.predicted_finish == pytest.approx(now + 21.6 + 2 * 10 * 2.4)


def test_a_crowd_that_is_gone_is_forgotten() -> None:
    bench = crowded()
    for flight in list(bench.scheduler._flights.values()):
        bench.scheduler.cancel(flight.item.job_id)
    bench.submit(image(steps=10), image(steps=10, deadline=bench.clock() + 12.0))


def test_headroom_refuses_what_would_only_just_make_it() -> None:
    Bench(headroom=1.0).submit(image(steps=3, deadline=3.0))
    with pytest.raises(Infeasible):
        Bench(headroom=1.1).submit(image(steps=3, deadline=3.2))
    Bench(headroom=1.1).submit(image(steps=3, deadline=3.4))


def test_interactive_is_feasible_where_batch_is_not() -> None:
    bench = Bench(buckets=(1,), deterministic_bucket=1)
    bench.submit(batch_image(steps=100))
    with pytest.raises(Infeasible):
        bench.submit(image(steps=3, priority=Priority.BATCH, deadline=10.0))
    bench.submit(image(steps=3, deadline=10.0))


def test_a_full_queue_refuses_and_says_when_there_is_room() -> None:
    bench = Bench(buckets=(1,), deterministic_bucket=1, max_waiting=2)
    bench.submit(image(steps=5))
    bench.run()  # one runs, so two more may wait
    bench.submit(image(), image())
    with pytest.raises(QueueFull) as refusal:
        bench.submit(image())
    assert (refusal.value.limit, refusal.value.retry_after) == (2, 4.0)
    for _ in range(5):
        bench.run()
    bench.submit(image())


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([], "one or more images"),
        ([image("a"), image("b")], "same job_id"),
        ([image("a", job="j"), image("a", job="j")], "same id"),
        ([image("taken")], "in flight"),
        ([image(f"a{i}", job="j") for i in range(4)], "more than 3 images"),
        ([image("a", rows=2, deterministic=True)], "none of the buckets"),
    ],
)
def test_a_job_that_can_never_run_is_refused(items: list[WorkItem], reason: str) -> None:
    bench = Bench(deterministic_bucket=1, max_waiting=3)
    bench.submit(image("taken"))
    with pytest.raises(InvalidJob, match=reason):
        bench.scheduler.submit(items)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"rows": 3}, {"rows": 0}, {"deadline": float("nan")}])
def test_an_image_checks_its_fields(wrong: dict[Any, Any]) -> None:
    with pytest.raises(InvalidJob):
        image(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"deterministic_bucket": 3},
        {"deterministic_bucket": 0},
        {"max_waiting": 0},
        {"aging_seconds": -1.0},
        {"aging_seconds": float("inf")},
        {"headroom": 0.9},
        {"finish_seconds": -0.1},
    ],
)
def test_the_policy_checks_its_fields(wrong: dict[Any, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Policy(**{"deterministic_bucket": 4} | wrong)


@pytest.mark.parametrize(
    ("buckets", "reason"), [((), "at least one"), ((0, 4), "positive"), ((1, 2), "none of")]
)
def test_the_scheduler_checks_its_buckets(buckets: tuple[int, ...], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Scheduler(lambda: 0.0, buckets, HALVING, Policy(deterministic_bucket=4))
