"""What the scheduler plans with, from what was measured."""

from __future__ import annotations

from itertools import pairwise

from engine.scheduling import without_noise


def a_row(ticks: dict[int, float]) -> list[float]:
    return [seconds / bucket for bucket, seconds in sorted(ticks.items())]


def test_on_a_flat_curve_larger_buckets_are_the_cheaper_ones() -> None:
    planned = a_row(without_noise({1: 0.020, 2: 0.030, 4: 0.052, 8: 0.110, 16: 0.216}))
    assert all(larger < smaller for smaller, larger in pairwise(planned))


def test_a_bucket_that_is_clearly_slower_is_believed() -> None:
    planned = without_noise({4: 0.040, 8: 0.160})
    assert planned == {4: 0.040, 8: 0.160}


def test_what_is_faster_anyway_stays_as_measured() -> None:
    measured = {1: 0.020, 2: 0.030, 4: 0.040}
    assert without_noise(measured) == measured
