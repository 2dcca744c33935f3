"""What the scheduler says of what is to come, and of where things stand."""

from __future__ import annotations

import pytest

from engine.scheduling import (
    CostCurve,
)

from .builders import BUCKETS, SMALL, Bench, batch_image, image


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
