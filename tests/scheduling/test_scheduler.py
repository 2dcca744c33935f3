"""Each rule of the scheduler, by example. Properties over random loads are in test_properties.py."""

from __future__ import annotations

import pytest

from engine.scheduling import (
    CostCurve,
    WorkItem,
)

from .builders import LARGE, SMALL, Bench, batch_image, ids, image


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
