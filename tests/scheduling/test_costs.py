"""The cost curve: what was measured, what lies between, and drift."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.scheduling import CostCurve

from .builders import LARGE, SMALL


def test_measurements_come_back() -> None:
    curve = CostCurve({SMALL: {1: 0.5, 8: 2.0}})
    assert (curve.seconds(SMALL, 1), curve.seconds(SMALL, 8)) == (0.5, 2.0)


def test_buckets_between_are_interpolated_and_beyond_are_proportional() -> None:
    curve = CostCurve({SMALL: {2: 1.0, 4: 2.0, 8: 3.0}})
    assert curve.seconds(SMALL, 6) == pytest.approx(2.5)
    assert curve.seconds(SMALL, 16) == pytest.approx(6.0)
    assert curve.seconds(SMALL, 1) == pytest.approx(1.0)


def test_shapes_between_are_interpolated_by_area_and_beyond_are_proportional() -> None:
    curve = CostCurve({SMALL: {1: 1.0}, LARGE: {1: 3.0}})  # areas 64 and 256
    assert curve.seconds((4, 8, 20), 1) == pytest.approx(2.0)
    assert curve.seconds((4, 16, 32), 1) == pytest.approx(6.0)
    assert curve.seconds((4, 4, 8), 1) == pytest.approx(0.5)
    assert curve.seconds((4, 4, 16), 1) == pytest.approx(1.0)


def test_drift_is_learnt_for_the_shape_in_all_its_buckets() -> None:
    curve = CostCurve({SMALL: {1: 1.0, 8: 2.0}, LARGE: {1: 3.0}})
    for _ in range(100):
        curve.observe(SMALL, 1, 1.5)
    assert curve.seconds(SMALL, 8) == pytest.approx(3.0, rel=1e-3)
    assert curve.seconds(LARGE, 1) == 3.0
    assert curve.warmup_seconds(SMALL, 8) == 2.0


def test_drift_is_unlearnt() -> None:
    curve = CostCurve({SMALL: {1: 1.0}})
    for seconds in [20.0] * 100 + [1.0] * 200:
        curve.observe(SMALL, 1, seconds)
    assert curve.seconds(SMALL, 1) == pytest.approx(1.0, rel=1e-3)


def test_a_single_stall_moves_the_curve_by_a_tenth() -> None:
    curve = CostCurve({SMALL: {1: 1.0}})
    curve.observe(SMALL, 1, 1000.0)
    assert curve.seconds(SMALL, 1) == pytest.approx(1.1)


def test_the_curve_survives_json() -> None:
    curve = CostCurve({SMALL: {1: 0.5, 8: 2.0}, LARGE: {1: 3.0}})
    again = CostCurve.from_dict(json.loads(json.dumps(curve.to_dict())))
    assert again.to_dict() == curve.to_dict()
    assert again.seconds(SMALL, 8) == 2.0


@pytest.mark.parametrize(
    "wrong", [{}, {SMALL: {}}, {SMALL: {1: 0.0}}, {SMALL: {1: float("nan")}}, {SMALL: {0: 1.0}}]
)
def test_what_is_no_measurement_is_refused(wrong: dict[Any, Any]) -> None:
    with pytest.raises(ValueError, match=r"measurement|not a time"):
        CostCurve(wrong)
