"""The table's arithmetic."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loadtests.peers.measure import Measured
from loadtests.peers.report import HEAD, SideReport, table, targets
from loadtests.peers.sides import parse_side
from loadtests.ratios import ratios


def measured(rate: float, latency: float = 1.0, unloaded: float = 0.5) -> Measured:
    return Measured(
        unloaded=(unloaded, unloaded, 9.0),
        saturated=(latency,) * 10,
        rate=rate,
        arrivals=(1.0, 1.5, 1.6, 4.0),
        arrival_seconds=2.0,
        offered_rate=0.8 * rate,
        slo_seconds=3 * unloaded,
    )


def side(name: str, *rounds: Measured) -> SideReport:
    return SideReport(name=name, rounds={"mixed": list(rounds)}, peak_bytes={"mixed": 5_000_000})


def test_ratios_are_taken_within_a_round() -> None:
    assert ratios([6.0, 4.0, 9.0], [2.0, 2.0, 2.0]) == (3.0, 2.0, 4.5)
    with pytest.raises(ValueError, match="argument"):
        ratios([1.0], [1.0, 2.0])


def test_goodput_counts_what_came_in_time() -> None:
    assert measured(1.0).goodput(1.5) == 1.0
    assert measured(1.0).unloaded_latency == 0.5


def test_the_table_has_a_line_for_each_side_and_says_why_one_is_missing() -> None:
    ours = side("limner", measured(6.0), measured(8.0))
    base = side("diffusers:float32", measured(2.0, 4.0), measured(2.0, 2.0))
    broken = SideReport(name="ray", failure="ended with status 1")
    lines = table("mixed", [ours, base, broken], ours, base)
    assert all(line.count("|") == len(HEAD) + 1 for line in lines[:5])
    assert lines[5:] == ["", "(*) of fewer than 30 requests, all rounds together"]
    assert "| 2.00 | 3.50 (3.00 to 4.00) | 3.00 | 4.00 | 0.38 (0.25 to 0.50) |" in lines[3]
    assert "ended with status 1" in lines[4]


def test_a_goodput_of_few_requests_is_marked() -> None:
    few = side("limner", measured(6.0))
    many = side("ray", replace(measured(6.0), arrivals=(1.0,) * 30))
    lines = table("mixed", [few, many], few, many)
    assert lines[2].count("* |") == 2
    assert "*" not in lines[3]
    assert lines[4:] == ["", "(*) of fewer than 30 requests, all rounds together"]
    assert len(table("mixed", [many], None, None)) == 3


def test_a_comparison_that_broke_off_is_told_of_the_rounds_that_both_have() -> None:
    ours = side("limner", measured(6.0), measured(8.0))
    base = side("diffusers:float32", measured(2.0))
    broken = side("ray", measured(3.0))
    broken.failure = "answered 500"
    lines = table("mixed", [ours, base, broken], ours, base)
    assert "| 2.00 | 3.00 (3.00 to 3.00) |" in lines[3]
    assert "| ray (then answered 500) | 3.00 | 2.00 (2.00 to 2.00) |" in lines[4]
    failed, found, *_ = targets([ours, base, broken])
    assert (failed.what, failed.ratio) == ("images/s, mixed: limner / ray", None)
    assert found.ratio == (3.0, 3.0, 3.0)


def test_targets_are_held_against_the_best_peer_of_their_kind() -> None:
    sides = [
        side("limner", measured(6.0, 1.0)),
        side("diffusers:float32", measured(1.0, 8.0)),
        side("litserve:bfloat16", measured(2.5, 2.0)),
        side("openvino", measured(4.0, 2.0)),
    ]
    found = {target.what: target for target in targets(sides)}
    assert not found["images/s, mixed: limner / litserve:bfloat16"].met
    assert found["images/s, mixed: limner / litserve:bfloat16"].ratio[0] == 2.4
    assert not found["p99, mixed: limner / litserve:bfloat16"].met
    assert found["images/s, mixed: limner / openvino"].met
    assert "unloaded latency, mixed: limner / diffusers:float32" in found


@pytest.mark.parametrize("name", ["limner", "limner-lanes", "limner-engines"])
def test_in_float32_twice_the_best_peer_in_float32_is_wanted(name: str) -> None:
    sides = [
        side(f"{name}:float32", measured(6.0)),
        side("litserve:float32", measured(2.5)),
        side("ray:bfloat16", measured(5.0)),
    ]
    (found,) = targets(sides)
    assert (found.what, found.met) == (f"images/s in float32, mixed: {name}:float32 / litserve:float32", True)


def test_int8_is_held_against_the_same_peers_by_itself() -> None:
    sides = [
        side("limner", measured(6.0)),
        side("limner:int8", measured(9.0)),
        side("ray:float32", measured(2.5)),
    ]
    found = {target.what: target.met for target in targets(sides)}
    assert not found["images/s, mixed: limner / ray:float32"]
    assert found["images/s, mixed: limner:int8 / ray:float32"]


def test_a_type_is_held_against_peers_of_as_many_bits_or_more() -> None:
    sides = [
        side("limner", measured(6.0)),
        side("limner:int8", measured(12.0)),
        side("limner:float32", measured(5.0)),
        side("litserve:bfloat16", measured(2.5)),
        side("litserve-compiled", measured(2.0)),
        side("litserve-compiled:bfloat16", measured(3.0)),
        side("litserve-compiled:int8", measured(5.0)),
        side("openvino", measured(4.0)),
        side("openvino:int8", measured(8.0)),
    ]
    rates = {target.what: target.ratio[0] for target in targets(sides) if target.what.startswith("images/s")}
    assert rates == {
        "images/s, mixed: limner / litserve:bfloat16": 2.4,
        "images/s, mixed: limner / litserve-compiled:bfloat16": 2.0,
        "images/s, mixed: limner / openvino": 1.5,
        "images/s, mixed: limner:int8 / litserve:bfloat16": 4.8,
        "images/s, mixed: limner:int8 / litserve-compiled:int8": 2.4,
        "images/s, mixed: limner:int8 / openvino:int8": 1.5,
        "images/s in float32, mixed: limner:float32 / litserve-compiled": 2.5,
    }


def test_a_target_whose_side_failed_is_not_passed_over() -> None:
    failed = SideReport(name="openvino", failure="did not start")
    found = {target.what: target.line() for target in targets([side("limner", measured(6.0)), failed])}
    what = "images/s, mixed: limner / openvino"
    assert found == {what: f"| {what} | not judged | at least 1.3 | - |"}
    failed.name, failed.failure = "limner", "did not start"
    assert {target.ratio for target in targets([failed, side("openvino", measured(3.0))])} == {None}


def test_a_peer_that_failed_is_named_beside_the_one_that_is_judged_in_its_place() -> None:
    failed = SideReport(name="litserve-compiled:int8", failure="did not start")
    sides = [side("limner:int8", measured(6.0)), side("litserve-compiled:float32", measured(2.0)), failed]
    found = {target.what: target.ratio for target in targets(sides) if target.what.startswith("images/s")}
    assert found == {
        "images/s, mixed: limner:int8 / litserve-compiled:int8": None,
        "images/s, mixed: limner:int8 / litserve-compiled:float32": (3.0, 3.0, 3.0),
    }


def test_a_side_is_a_name_and_a_type() -> None:
    assert str(parse_side("litserve:bfloat16")) == "litserve:bfloat16"
    assert parse_side("limner").dtype is None
    assert parse_side("limner-engines:int8").dtype == "int8"
    with pytest.raises(ValueError, match="tgi"):
        parse_side("tgi")
    assert parse_side("litserve-compiled:int8").dtype == "int8"
    with pytest.raises(ValueError, match="int8"):
        parse_side("ray:int8")
