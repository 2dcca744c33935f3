"""Figures of records and readings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from loadtests.runner.measures import Figures, figures, latency, memory, slope
from loadtests.runner.target import Stages, Status
from loadtests.runner.watch import SERIES, Sample, parse_page, parse_ticks
from loadtests.ticks import BucketTicks
from tests.loadtests.building import answer

SPAN = [(0.0, 10.0)]


def test_quantiles_are_those_of_numpy_and_nothing_has_none() -> None:
    values = np.random.default_rng(0).exponential(1.0, 1000)
    told = latency(values)
    assert (told.count, told.max) == (1000, values.max())
    assert [told.p50, told.p90, told.p95, told.p99] == np.quantile(values, [0.5, 0.9, 0.95, 0.99]).tolist()
    assert latency([]).p50 is None


def test_latency_counts_from_due_and_service_from_sent() -> None:
    told = figures([answer(0, due=1.0, latency=3.0, sent=3.5)], SPAN, 1.0)
    assert (told.latency.p50, told.service.p50, told.late_start.p50) == (3.0, 0.5, 2.5)
    assert told.goodput == 0


def test_goodput_is_images_in_time_within_the_span() -> None:
    records = [
        answer(0, due=1.0, latency=0.5, images=2),
        answer(1, due=2.0, latency=1.5),
        answer(2, due=9.9, latency=0.5),  # answered after the span
        answer(3, due=3.0, latency=0.1, status=Status.EXPIRED, reason="DEADLINE_EXCEEDED", images=0),
    ]
    told = figures(records, SPAN, slo_seconds=1.0)
    assert (told.throughput, told.goodput, told.offered, told.images) == (0.3, 0.2, 0.4, 4)
    assert {name: count for name, count in told.statuses.items() if count} == {"ok": 3, "expired": 1}
    assert (told.answered_share, told.admitted.count, told.latency.count) == (0.75, 4, 3)
    # Answers of an earlier phase count where they come.
    assert figures(records[:1], SPAN, 1.0, answered=records[:2]).throughput == pytest.approx(0.3)


def test_figures_over_several_spans_leave_out_what_is_between_them() -> None:
    records = [
        answer(0, due=1.0, latency=1.0),
        answer(1, due=9.0, latency=2.0),  # answered between the two
        answer(2, due=21.0, latency=1.0, images=2),
        answer(3, due=29.0, latency=1.0),  # answered when the second is over
    ]
    before = answer(4, due=15.0, latency=5.0)  # of another phase, answered as the second begins
    for spans in ([(0.0, 10.0), (20.0, 30.0)], [(20.0, 30.0), (0.0, 10.0)]):
        told = figures(records, spans, 1.5, answered=[*records, before])
        assert (told.seconds, told.sent, told.offered, told.images) == (20.0, 4, 0.2, 5)
        assert (told.throughput, told.goodput) == (4 / 20, 3 / 20)
        assert told.latency.p50 == 1.0


def test_hits_and_misses_are_told_apart() -> None:
    records = [
        answer(0, due=0.0, latency=0.5, person=1, cache="hit"),
        answer(1, due=0.0, latency=0.6, person=1, cache="hit"),
        answer(2, due=0.0, latency=0.9, person=2, cache="miss"),
        answer(3, due=0.0, latency=0.8, person=2, cache="coalesced"),
        answer(4, due=0.0, latency=0.4),
    ]
    told = figures(records, SPAN, 1.0)
    assert {name: one.count for name, one in told.by_cache.items()} == {
        "hit": 2,
        "miss": 1,
        "coalesced": 1,
        "none": 1,
    }
    assert told.by_cache["hit"].p50 == pytest.approx(0.55)
    assert told.hit_rate == 0.5


def test_refusals_are_told_by_reason_with_their_latency_and_retry_info() -> None:
    refused = {"status": Status.REFUSED, "images": 0}
    records = [
        answer(0, due=0.0, latency=0.005, sent=0.002, reason="OVERLOADED", retry_after=1.0, **refused),
        answer(1, due=0.0, latency=0.007, sent=0.002, reason="OVERLOADED", **refused),
        answer(2, due=0.0, latency=0.009, reason="DEADLINE_INFEASIBLE", retry_after=0.0, **refused),
    ]
    told = figures(records, SPAN, 1.0)
    assert {name: (one.count, one.with_retry_info) for name, one in told.refusals.items()} == {
        "OVERLOADED": (2, 1),
        "DEADLINE_INFEASIBLE": (1, 1),
    }
    assert told.refusals["OVERLOADED"].answered.p50 == pytest.approx(0.004)
    assert (told.refused.count, told.refused.with_retry_info) == (3, 2)
    assert (told.admitted.count, told.answered_share) == (0, None)


def test_failures_keep_their_words() -> None:
    failed = {"status": Status.FAILED, "reason": "INTERNAL", "message": "no"}
    told = figures([answer(n, due=0.0, latency=0.1, **failed) for n in range(3)], SPAN, 1.0)
    assert told.errors == {"INTERNAL: no": 3}


def test_stages_are_means() -> None:
    records = [answer(n, due=0.0, latency=1.0, stages=Stages(queue=0.1 * n), batch_rows=n) for n in range(3)]
    told = figures(records, SPAN, 1.0)
    assert (told.stages["queue"], told.batch_rows) == (pytest.approx(0.1), 1.0)


def readings(**counters: list[float]) -> list[Sample]:
    rows = zip(*counters.values(), strict=True)
    return [
        Sample(at=5.0 * place, values=dict(zip(counters, row, strict=True))) for place, row in enumerate(rows)
    ]


def test_counters_grow_evenly_between_readings() -> None:
    samples = readings(
        rows_useful=[100, 190, 190], rows_padded=[0, 10, 10], busy_seconds=[1, 3, 5], encodes=[7, 9, 9]
    )
    whole = figures([], SPAN, 1.0, samples=samples)
    assert (whole.padded_share, whole.busy_share, whole.encodes) == (0.1, 0.4, 2.0)
    assert figures([], [(5.0, 10.0)], 1.0, samples=samples).encodes == 0.0
    # A series that is not on the page before its first event has not counted any.
    new = [
        Sample(at=0.0, values={"rows_useful": 10.0}),
        Sample(at=10.0, values={"rows_useful": 19.0, "rows_padded": 1.0}),
    ]
    assert figures([], SPAN, 1.0, samples=new).padded_share == pytest.approx(0.1)


def test_counters_over_several_spans_are_of_these_alone() -> None:
    samples = readings(
        rows_useful=[0, 40, 40, 100, 200], rows_padded=[0, 10, 60, 60, 60], busy_seconds=[0, 5, 5, 9, 10]
    )
    # From 0 to 5 and from 10 to 15: 40 + 60 useful rows, 10 padded, 9 busy seconds.
    told = figures([], [(0.0, 5.0), (10.0, 15.0)], 1.0, samples=samples)
    assert (told.padded_share, told.busy_share) == (10 / 110, 0.9)
    # From 2.5 to 5 and from 15 to 17.5, halves of what was read: 20 + 50 useful and 5 padded rows.
    told = figures([], [(2.5, 5.0), (15.0, 17.5)], 1.0, samples=samples)
    assert told.padded_share == pytest.approx(5 / 75)
    assert told.busy_share == pytest.approx((2.5 + 0.5) / 5)


def test_spans_that_touch_count_nothing_twice() -> None:
    samples = readings(encodes=[0, 10, 12])
    assert figures([], SPAN, 1.0, samples=samples).encodes == 12.0
    assert figures([], [(0.0, 4.0), (4.0, 10.0)], 1.0, samples=samples).encodes == pytest.approx(12.0)


def test_what_was_not_read_is_left_out() -> None:
    samples = readings(rows_useful=[0, 90, 180], rows_padded=[0, 10, 20], busy_seconds=[0, 2, 4])
    told = figures([], [(5.0, 15.0), (20.0, 30.0)], 1.0, samples=samples)
    assert (told.padded_share, told.busy_share) == (0.1, 0.4)
    assert figures([], [(20.0, 30.0)], 1.0, samples=samples).padded_share is None
    assert figures([], SPAN, 1.0, samples=samples[:1]).busy_share is None


def test_without_a_page_there_are_no_figures_of_it() -> None:
    told: Figures = figures([], SPAN, 1.0, samples=readings(tree_memory=[1, 2, 3]))
    assert (told.padded_share, told.encodes) == (None, None)


def test_the_slope_is_that_of_a_line_through_the_noise() -> None:
    rng = np.random.default_rng(0)
    points = [
        (at, 5e8 + 1000 * at + noise) for at, noise in zip(range(600), rng.normal(0, 1e4, 600), strict=True)
    ]
    assert slope(points) == pytest.approx(1000, rel=0.05)
    assert slope(points[:2]) is None


def test_memory_is_the_tree_where_there_is_one_else_server_and_engine() -> None:
    def of(**values: float) -> float | None:
        return memory(Sample(at=0.0, values=values))

    assert of(tree_memory=5.0, server_memory=1.0) == 5.0
    assert of(server_memory=1.0, engine_memory=2.0) == 3.0
    assert of(process_memory=4.0) == 4.0
    assert of(encodes=4.0) is None


PAGE = """\
# HELP limner_rows_total Rows.
# TYPE limner_rows_total counter
limner_rows_total{engine="a",kind="useful"} 90.0
limner_rows_total{engine="b",kind="useful"} 10.0
limner_rows_total{engine="a",kind="padded"} 5.0
# TYPE limner_server_process_resident_memory_bytes gauge
limner_server_process_resident_memory_bytes 1.25e+08
limner_tick_seconds_bucket{engine="a",bucket="2",le="0.1"} 4.0
limner_tick_seconds_count{engine="a",bucket="2"} 4.0
limner_tick_seconds_sum{engine="a",bucket="2"} 0.5
limner_tick_seconds_count{engine="a",bucket="8"} 6.0
limner_tick_seconds_sum{engine="a",bucket="8"} 3.0
limner_tick_seconds_count{engine="b",bucket="8"} 1.0
limner_tick_seconds_sum{engine="b",bucket="8"} 0.25
"""


def test_a_page_is_read_by_name_and_labels_and_engines_are_added_up() -> None:
    assert parse_page(PAGE) == {
        "rows_useful": 100.0,
        "rows_padded": 5.0,
        "server_memory": 1.25e8,
    }
    assert parse_ticks(PAGE) == {
        2: BucketTicks(count=4, seconds=0.5),
        8: BucketTicks(count=7, seconds=3.25),
    }
    assert parse_ticks("") == {}


def test_every_series_that_is_read_is_documented() -> None:
    documented = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
    for name, labels in SERIES.values():
        if name.startswith("limner_"):
            assert f"`{name}`" in documented
            assert all(value in documented for value in labels.values())
