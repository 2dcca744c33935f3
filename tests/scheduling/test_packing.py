"""The choice of the bucket."""

from __future__ import annotations

import pytest

from engine.scheduling import CostCurve

from .builders import SMALL, Bench, image


def chosen(costs: dict[int, float], rows: list[int]) -> tuple[int, int]:
    """Return (bucket, images) of the first tick for images with so many rows each."""
    bench = Bench(buckets=tuple(costs), costs=CostCurve({SMALL: costs}), deterministic_bucket=max(costs))
    bench.submit(*(image(rows=n) for n in rows))
    tick = bench.tick()
    return tick.bucket, len(tick.items)


def test_nine_rows_go_as_sixteen_when_that_beats_eight_and_then_one() -> None:
    assert chosen({1: 0.9, 8: 1.0, 16: 1.5}, [1] * 9) == (16, 9)


def test_nine_rows_go_as_eight_and_then_one_when_that_is_faster() -> None:
    assert chosen({1: 0.2, 8: 1.0, 16: 1.5}, [1] * 9) == (8, 8)


def test_where_batching_gains_nothing_the_first_in_line_runs_alone() -> None:
    assert chosen({n: 0.1 * n for n in (1, 2, 4, 8, 16)}, [1] * 20) == (1, 1)
    assert chosen({n: 0.1 * n for n in (1, 2, 4, 8, 16)}, [2] * 20) == (2, 1)


def test_a_backlog_runs_in_the_bucket_with_the_most_rows_a_second() -> None:
    assert chosen({4: 0.4, 8: 0.6, 16: 1.4}, [1] * 64) == (8, 8)


def test_a_backlog_is_not_cut_so_that_only_its_end_fits_well() -> None:
    # 1 row alone, and then pairs that fill their buckets: good for 9 rows, but a waste if it goes on and on.
    assert chosen({1: 0.5, 8: 2.4}, [1] + [2] * 4) == (1, 1)
    assert chosen({1: 0.5, 8: 2.4}, [1] + [2] * 20) == (8, 4)


def test_a_bucket_is_judged_by_the_rows_that_it_really_takes() -> None:
    # Pairs leave a place empty in 3, so 4 is better although 3 costs less per place.
    assert chosen({3: 0.29, 4: 0.4}, [2] * 8) == (4, 2)


@pytest.mark.parametrize(("rows", "bucket"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (8, 8), (30, 8)])
def test_with_a_usual_curve_the_bucket_is_the_next_larger_one(rows: int, bucket: int) -> None:
    assert chosen({1: 1.0, 2: 1.2, 4: 1.6, 8: 2.4}, [1] * rows) == (bucket, min(rows, 8))
