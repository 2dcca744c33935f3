"""Each rule of the scheduler, by example. Properties over random loads are in test_properties.py."""

from __future__ import annotations

from typing import Any

import pytest

from engine.scheduling import (
    CostCurve,
    Infeasible,
    InvalidJob,
    Policy,
    Priority,
    QueueFull,
    Scheduler,
    WorkItem,
)

from .builders import BUCKETS, HALVING, LARGE, SMALL, Bench, batch_image, ids, image


def test_an_empty_scheduler_has_no_tick() -> None:
    assert Bench().scheduler.next_tick() is None


def test_an_image_takes_its_steps_in_order_and_then_is_finished() -> None:
    bench = Bench()
    bench.submit(image("a", steps=3))
    steps = []
    for _ in range(3):
        steps.append(bench.tick().steps)
        last = bench.run()
    assert steps == [(0,), (1,), (2,)]
    assert last == (["a"], ["a"])
    assert bench.scheduler.next_tick() is None


def test_images_of_different_progress_and_length_share_a_tick() -> None:
    bench = Bench()
    bench.submit(image("a", steps=3))
    bench.run()
    bench.submit(image("b", steps=9))
    tick = bench.tick()
    assert (ids(tick), tick.steps, tick.bucket) == (["a", "b"], (1, 0), 2)


def test_both_rows_of_a_guided_image_are_in_the_same_tick() -> None:
    bench = Bench(buckets=(2,), deterministic_bucket=2)
    bench.submit(image("a", steps=1), image("b", steps=1, rows=2))
    assert [bench.run()[0] for _ in range(2)] == [["a"], ["b"]]


def test_an_image_takes_its_second_row_in_its_guided_steps_only() -> None:
    bench = Bench(buckets=(1, 2, 4))
    half = WorkItem(id="a", job_id="a", steps=3, rows=2, shape=SMALL, guided_steps=range(1, 2))
    promised = bench.scheduler.submit([half])
    ticks = []
    for _ in range(3):
        ticks.append((tick := bench.tick()).bucket)
        assert bench.scheduler.snapshot().rows == tick.rows == tick.bucket
        bench.run()
    assert ticks == [1, 2, 1]
    assert promised.finishes_in == bench.clock() == 1.0 + 1.2 + 1.0


def test_a_later_image_does_not_slip_through_where_an_earlier_one_does_not_fit() -> None:
    bench = Bench(buckets=(4,), deterministic_bucket=4)
    bench.submit(image("a"), image("b", rows=2), image("c", rows=2), image("d"))
    assert ids(bench.tick()) == ["a", "b"]


def test_newcomers_wait_until_those_before_them_are_done() -> None:
    bench = Bench(buckets=(2,), deterministic_bucket=2)
    bench.submit(image("a", steps=2), image("b", steps=3), image("c", steps=1))
    assert [bench.run()[0] for _ in range(3)] == [["a", "b"], ["a", "b"], ["b", "c"]]


def test_a_tick_that_was_never_completed_advances_nothing() -> None:
    bench = Bench()
    bench.submit(image("a"))
    assert bench.tick() == bench.tick()


def test_completing_a_tick_twice_is_our_own_bug() -> None:
    bench = Bench()
    bench.submit(image("a"))
    tick = bench.tick()
    bench.scheduler.complete(tick, 1.0)
    with pytest.raises(AssertionError, match="completes step 0, 1 is due"):
        bench.scheduler.complete(tick, 1.0)


# Priorities and aging.


def test_interactive_pushes_batch_aside_and_batch_keeps_its_progress() -> None:
    bench = Bench(buckets=(1,), deterministic_bucket=1)
    bench.submit(batch_image("b", steps=3))
    bench.run()
    bench.submit(image("i", steps=2))
    assert [bench.run()[0] for _ in range(2)] == [["i"], ["i"]]
    tick = bench.tick()
    assert (ids(tick), tick.steps) == (["b"], (1,))


def test_batch_fills_the_room_that_interactive_leaves() -> None:
    bench = Bench(buckets=(4,), deterministic_bucket=4)
    bench.submit(batch_image("b"), image("i"))
    assert ids(bench.tick()) == ["i", "b"]


def test_a_batch_image_makes_no_interactive_ones_tick_longer() -> None:
    bench = Bench(buckets=(1, 4), deterministic_bucket=4)
    bench.submit(*[batch_image(f"b{number}") for number in range(9)])
    assert bench.tick().bucket == 4
    bench.submit(image("i", steps=2))
    for _ in range(2):
        tick = bench.tick()
        assert (ids(tick), tick.bucket) == (["i"], 1)
        bench.run()
    assert bench.tick().bucket == 4


def test_several_interactive_images_have_the_bucket_that_is_best_for_them_and_batch_what_is_left_of_it() -> (
    None
):
    bench = Bench(buckets=(1, 4), deterministic_bucket=4)
    bench.submit(batch_image("b"), batch_image("c"))
    bench.submit(image("i"), image("j"), image("k"))
    tick = bench.tick()
    assert (ids(tick), tick.bucket) == (["i", "j", "k", "b"], 4)


def test_a_batch_image_that_is_of_age_shares_ticks_like_any_other() -> None:
    bench = Bench(buckets=(1, 4), deterministic_bucket=4, aging_seconds=5.0)
    bench.submit(batch_image("b"))
    bench.clock.advance(6.0)
    bench.submit(image("i"), batch_image("c"))
    assert ids(bench.tick()) == ["b", "i", "c"]


@pytest.mark.parametrize("aging", [5.0, 50.0])
def test_aging_bounds_the_wait_under_continuous_interactive_load(aging: float) -> None:
    bench = Bench(buckets=(1,), deterministic_bucket=1, aging_seconds=aging)
    bench.submit(batch_image("b", steps=1))
    ran: list[str] = []
    while "b" not in ran and bench.clock() < 200.0:
        bench.submit(image(steps=1))  # one a second, each takes one second: no room is ever left
        ran, _ = bench.run()
    assert aging <= bench.clock() <= aging + 2.0


def test_a_batch_image_gives_way_only_to_those_that_arrive_before_it_comes_of_age() -> None:
    bench = Bench(buckets=(1,), deterministic_bucket=1, aging_seconds=5.0)
    bench.submit(batch_image("b", steps=4))
    bench.clock.advance(4.9)
    bench.submit(image("in time", steps=1))
    bench.clock.advance(0.2)
    bench.submit(image("too late", steps=1))
    assert [bench.run()[0][0] for _ in range(6)] == ["in time", "b", "b", "b", "b", "too late"]


# Deadlines, cancellation, failure.


def test_an_image_is_dropped_at_its_deadline_and_reported_once() -> None:
    bench = Bench()
    item = image("a", deadline=10.0)
    bench.submit(item, image("b", steps=20))
    bench.clock.advance(10.0)
    assert ids(bench.tick()) == ["b"]
    assert bench.scheduler.take_expired() == (item,)
    assert bench.scheduler.take_expired() == ()


def test_an_expiry_is_reported_even_when_nothing_is_left_to_run() -> None:
    bench = Bench()
    item = image("a", deadline=10.0)
    bench.submit(item)
    bench.clock.advance(11.0)
    assert bench.scheduler.next_tick() is None
    assert bench.scheduler.take_expired() == (item,)


def test_cancel_drops_all_images_of_the_job_and_no_other() -> None:
    bench = Bench()
    bench.scheduler.submit([image("a1", job="a"), image("a2", job="a")])
    bench.submit(image("b"))
    assert bench.scheduler.cancel("a") == ("a1", "a2")
    assert bench.scheduler.cancel("a") == ()
    assert ids(bench.tick()) == ["b"]


def test_cancel_while_the_tick_runs_finishes_nothing() -> None:
    bench = Bench()
    bench.submit(image("a", steps=1), image("b", steps=1))
    tick = bench.tick()
    bench.scheduler.cancel("a")
    assert [item.id for item in bench.scheduler.complete(tick, 1.0)] == ["b"]
    assert bench.scheduler.next_tick() is None


def test_an_id_may_be_used_again_after_cancel_even_while_the_old_tick_runs() -> None:
    bench = Bench()
    bench.submit(image("a", steps=1))
    tick = bench.tick()
    bench.scheduler.cancel("a")
    bench.submit(image("a", steps=1))
    assert bench.scheduler.complete(tick, 1.0) == ()
    assert bench.scheduler.snapshot().waiting == 1


def test_fail_drops_one_image() -> None:
    bench = Bench()
    bench.scheduler.submit([image("a1", job="a"), image("a2", job="a")])
    assert bench.scheduler.fail("a1")
    assert not bench.scheduler.fail("a1")
    assert ids(bench.tick()) == ["a2"]


def test_split_isolates_the_bad_row_and_the_others_lose_nothing() -> None:
    bench = Bench()
    bench.submit(image("good", steps=2), image("bad", steps=2), image("exact", steps=2, deterministic=True))
    bench.run()
    whole = bench.tick()
    for single in bench.scheduler.split(whole):
        if ids(single) == ["bad"]:
            assert bench.scheduler.fail("bad")
        else:
            assert single.steps == (1,)
            assert len(bench.scheduler.complete(single, 1.0)) == 1
    assert bench.scheduler.next_tick() is None


def test_split_runs_each_image_in_the_smallest_bucket_that_is_allowed_to_it() -> None:
    bench = Bench()
    bench.submit(image(rows=1), image(rows=2), image(rows=1, deterministic=True))
    assert [tick.bucket for tick in bench.scheduler.split(bench.tick())] == [1, 2, 4]


def test_split_leaves_out_what_was_cancelled_meanwhile() -> None:
    bench = Bench()
    bench.submit(image("a"), image("b"))
    tick = bench.tick()
    bench.scheduler.cancel("a")
    assert [ids(single) for single in bench.scheduler.split(tick)] == [["b"]]


# Shapes and determinism.


def test_only_equal_shapes_share_a_tick_and_the_first_in_line_decides_which() -> None:
    bench = Bench()
    bench.submit(image("s1"), image("l1", shape=LARGE), image("s2"))
    tick = bench.tick()
    assert (ids(tick), tick.shape) == (["s1", "s2"], SMALL)


def test_a_steady_stream_of_one_shape_does_not_starve_another() -> None:
    bench = Bench()
    bench.submit(image("first", steps=5), image("large", steps=2, shape=LARGE))
    seen = []
    for _ in range(7):
        bench.submit(image(steps=5))
        seen.append(bench.tick().shape)
        bench.run()
    assert seen == [SMALL] * 5 + [LARGE] * 2


def test_an_interactive_image_of_another_shape_goes_first() -> None:
    bench = Bench()
    bench.submit(batch_image("b"), image("i", shape=LARGE))
    assert ids(bench.tick()) == ["i"]


def test_a_deterministic_image_fixes_the_bucket_and_others_may_share_it() -> None:
    bench = Bench()
    bench.submit(image("d", deterministic=True))
    assert bench.tick().bucket == 4
    bench.submit(*(image(f"n{i}") for i in range(7)))
    tick = bench.tick()
    assert (ids(tick), tick.bucket) == (["d", "n0", "n1", "n2"], 4)


def test_a_larger_bucket_stops_before_a_deterministic_image() -> None:
    bench = Bench(costs=CostCurve({SMALL: {1: 1.0, 8: 1.1}}))
    bench.submit(*(image() for _ in range(6)), image(deterministic=True), *(image() for _ in range(20)))
    tick = bench.tick()
    assert (len(tick.items), tick.bucket) == (6, 8)


# Distrusted buckets.


def test_a_distrusted_bucket_and_larger_ones_hold_no_images_together_any_more() -> None:
    bench = Bench()
    bench.submit(*(image(steps=9) for _ in range(6)))
    tick = bench.tick()
    assert tick.bucket == 8
    bench.scheduler.distrust(tick)
    assert bench.tick().bucket == 4
    bench.scheduler.distrust(bench.tick())
    assert (bench.tick().bucket, len(bench.tick().items)) == (2, 2)


def test_another_shape_keeps_its_buckets() -> None:
    bench = Bench()
    bench.submit(*(image(steps=1) for _ in range(6)))
    bench.scheduler.distrust(bench.tick())
    bench.submit(*(image(shape=LARGE) for _ in range(6)))
    while (tick := bench.tick()).shape != LARGE:
        bench.run()
    assert tick.bucket == 8


def test_guided_and_deterministic_images_run_alone_where_no_bucket_is_trusted() -> None:
    bench = Bench()
    bench.submit(image("a", steps=1), image("b", steps=1))
    bench.scheduler.distrust(bench.tick())
    bench.submit(image("c", steps=1, rows=2), image("d", steps=1, deterministic=True), image("e", steps=1))
    ran = []
    while (tick := bench.scheduler.next_tick()) is not None:
        ran.append((tick.bucket, ids(tick)))
        bench.run()
    assert ran == [(1, ["a"]), (1, ["b"]), (2, ["c"]), (4, ["d"]), (1, ["e"])]


# Admission.


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


# Looking ahead.


def test_predict_changes_nothing_and_agrees_with_submit() -> None:
    bench = Bench()
    bench.submit(image(steps=7), image(steps=2, rows=2))
    job = [image("x", job="x"), image("y", job="x")]
    predicted = bench.scheduler.predict(job)
    assert bench.scheduler.snapshot().waiting == 2
    assert bench.scheduler.submit(job) == predicted


def test_estimates_count_down_as_the_ticks_go_by() -> None:
    bench = Bench(buckets=(1,), deterministic_bucket=1)
    bench.submit(image("a", steps=2), image("b", steps=3))
    seen = []
    for _ in range(5):
        estimates = bench.scheduler.estimates()
        seen.append([(e.position, e.starts_in, e.finishes_in) for e in estimates.values()])
        bench.run()
    assert seen == [
        [(0, 0.0, 2.0), (1, 2.0, 5.0)],
        [(0, 0.0, 1.0), (0, 1.0, 4.0)],
        [(0, 0.0, 3.0)],
        [(0, 0.0, 2.0)],
        [(0, 0.0, 1.0)],
    ]


def test_images_in_the_running_tick_are_not_before_anyone_in_the_queue() -> None:
    bench = Bench(buckets=(1,), deterministic_bucket=1)
    bench.submit(image("running", steps=5), image("waiting"))
    bench.run()
    assert bench.scheduler.submit([image("newcomer")]).position == 1


def test_a_preempted_job_has_started_although_it_waits() -> None:
    bench = Bench(buckets=(1,), deterministic_bucket=1)
    bench.submit(batch_image("b", steps=3))
    bench.run()
    bench.submit(image("i", steps=4))
    estimate = bench.scheduler.estimates()["b"]
    assert (estimate.position, estimate.starts_in, estimate.finishes_in) == (1, 0.0, 6.0)


def test_the_snapshot_tells_waiting_from_running_from_preempted() -> None:
    bench = Bench(buckets=(1,), deterministic_bucket=1)
    bench.submit(batch_image("b"))
    bench.run()
    bench.submit(image("i", rows=1))
    bench.run()
    bench.clock.advance(2.0)
    bench.submit(image("w"))
    bench.clock.advance(3.0)
    snapshot = bench.scheduler.snapshot()
    assert (snapshot.waiting, snapshot.running, snapshot.preempted) == (1, 1, 1)
    assert (snapshot.rows, snapshot.oldest_wait_seconds) == (3, 3.0)


def test_predictions_follow_a_machine_that_becomes_slower() -> None:
    bench = Bench(buckets=(1,), deterministic_bucket=1, costs=CostCurve({SMALL: {1: 1.0}}))
    bench.submit(image(steps=200))
    for _ in range(60):
        bench.scheduler.complete(bench.tick(), 2.0)
    [estimate] = bench.scheduler.estimates().values()
    assert estimate.finishes_in == pytest.approx(280.0, rel=0.01)


def test_buckets_may_come_in_any_order() -> None:
    bench = Bench(buckets=tuple(reversed(BUCKETS)))
    bench.submit(image(), image(), image())
    assert bench.tick().bucket == 4
