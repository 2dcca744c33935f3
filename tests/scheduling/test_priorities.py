"""Who gives way to whom, and which ticks interactive images have beside batch ones."""

from __future__ import annotations

import pytest

from .builders import Bench, batch_image, ids, image


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
