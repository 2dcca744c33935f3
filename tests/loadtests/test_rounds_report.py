"""Phases that take turns: how they are summed up, judged, shown and exported."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from matplotlib.figure import Figure

from loadtests.runner.command_export import export
from loadtests.runner.compare import differences
from loadtests.runner.errors import ReportError
from loadtests.runner.page import page
from loadtests.runner.plan import make_plan
from loadtests.runner.plots import _time_axis
from loadtests.runner.report import Report, judge, read_report, write_report
from loadtests.runner.scenario import Closed, Expectation, Mix, Phase, Poisson, Scenario, Stream
from loadtests.runner.text import summary
from loadtests.runner.watch import Sample
from tests.loadtests.building import SPEED, answer, report, scenario

PHASES = (Phase(name="work"), Phase(name="pause"))


def turning(**more: object) -> Scenario:
    """Twice ten seconds of callers, ten beside batch callers, five of these alone, and five of nobody."""
    phases = tuple(
        Phase(name=name, share=share)
        for name, share in (("alone", 2), ("beside", 2), ("full", 1), ("pause", 1))
    )
    return scenario(
        Stream(
            name="callers",
            arrivals=Poisson(per_second=0.4),
            phases=("alone", "beside"),
            mix=Mix(images=(1, 3)),
        ),
        Stream(name="batch", arrivals=Closed(concurrency=2), phases=("beside", "full")),
        phases=phases,
        rounds=2,
        seconds=60.0,
        **more,
    )


def turned(**more: object) -> Report:
    """What came of it, alike in each round: of batch images 8 end beside the others, 6 in full and 1 in the pause."""
    told = []
    for begin in (0.0, 30.0):
        told += [("callers", "alone", begin + at, 0.5 + 0.01 * begin) for at in range(4)]
        told += [("callers", "beside", begin + 10 + at, 0.75) for at in range(5)]
        told += [("batch", "beside", begin + 10 + at, 1.0) for at in range(8)]
        # Two were asked for at the end of one phase and end in the next, one ends in the pause.
        told += [("batch", "beside", begin + 19, 2.0)] * 2
        told += [("batch", "full", begin + 20 + at, 0.5) for at in range(4)]
        told += [("batch", "full", begin + 24, 2.0)]
    records = [
        answer(number, due=due, latency=latency, stream=name, phase=phase)
        for number, (name, phase, due, latency) in enumerate(told)
    ]
    samples = [
        Sample(at=at, values={"rows_useful": 9.0 * at, "rows_padded": at}) for at in map(float, range(62))
    ]
    return report(records, of=turning(**more), samples=samples)


def test_figures_of_a_phase_are_of_all_its_turns() -> None:
    made = turned()
    found = made.figures
    assert {phase: streams["all"].seconds for phase, streams in found.items()} == {
        "all": 60.0,
        "alone": 20.0,
        "beside": 20.0,
        "full": 10.0,
        "pause": 10.0,
    }
    assert {phase: streams["all"].sent for phase, streams in found.items()} == {
        "all": 48,
        "alone": 8,
        "beside": 30,
        "full": 10,
        "pause": 0,
    }
    # Where they end: 16 of the batch callers' 20 in the phase they were due in, and the other four in the next.
    assert found["beside"]["batch"].throughput == 16 / 20
    assert found["full"]["batch"].throughput == (8 + 4) / 10
    assert found["pause"]["all"].throughput == 2 / 10
    # The median of 0.5 four times and 0.8 four times.
    assert found["alone"]["callers"].latency.p50 == pytest.approx(0.65)
    assert found["beside"]["callers"].offered == 10 / 20
    assert found["full"]["all"].padded_share == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("of", "capacity_phase", "rest"),
    [
        # In `full` 1.2 images ended a second; a caller asks for two on average, and half a caller came a second.
        ("beside.batch.throughput", "full", 1.2 - 2 * 0.5),
        ("alone.all.throughput", "full", 1.2 - 2 * 0.4),
        ("full.batch.throughput", "full", 1.2),
        # Calibration's 10 requests are of both streams in turn: one and a half images each.
        ("beside.batch.throughput", "", 15 - 2 * 0.5),
        ("full.batch.throughput", "", 15),
        ("all.batch.throughput", "", 15 - 2 * 18 / 60),
    ],
)
def test_the_rest_of_the_capacity_is_what_was_left_in_the_phase_that_is_held_against_it(
    of: str, capacity_phase: str, rest: float
) -> None:
    made = turned(capacity_phase=capacity_phase)
    expected = Expectation(about="a share of it", of=of, against="rest_capacity", at_least=0.0)
    value = made.figure(of)
    assert value is not None
    judged = judge(expected, made.figures, made.scenario, made.speed)
    assert judged.value == pytest.approx(value / rest)
    with pytest.raises(ReportError, match="can only be held against"):
        made.figure("rest_capacity")


def test_a_pause_is_in_no_table() -> None:
    made = turned()
    shown = summary(made)
    assert "60 s in 2 rounds" in shown
    lines = [line.split("|")[1:3] for line in shown.splitlines() if line.startswith("| ")]
    assert [tuple(cell.strip() for cell in cells) for cells in lines[1:]] == [
        ("alone", "callers"),
        ("beside", "all"),
        ("beside", "callers"),
        ("beside", "batch"),
        ("full", "batch"),
    ]
    assert not [one.figure for one in differences(made, made) if one.figure.startswith("pause")]
    assert [one.figure for one in differences(made, made) if one.figure.startswith("full")]


def test_the_page_shows_rounds_but_no_pause() -> None:
    text = page(turned())
    assert "60 s in 2 rounds" in text
    assert '<td class="name">full</td>' in text
    assert '<td class="name">pause</td>' not in text
    assert text.count("<svg") > 3


@pytest.mark.parametrize(("rounds", "lines"), [(1, 3), (2, 7), (15, 59), (16, 0)])
def test_plots_have_a_line_where_a_turn_begins_unless_there_are_too_many(rounds: int, lines: int) -> None:
    made = report([], of=msgspec.structs.replace(turning(), rounds=rounds))
    axes = Figure().add_subplot()
    _time_axis(axes, made, "a thing")
    at = [line.get_xdata()[0] for line in axes.lines]
    assert len(at) == lines
    assert at == sorted(at)
    if rounds == 2:
        assert at == pytest.approx([10, 20, 25, 30, 40, 50, 55])


def test_a_report_of_before_there_were_rounds_is_read(tmp_path: Path) -> None:
    path, made = tmp_path / "run.json", report([answer(0, due=0.0, latency=0.5)])
    write_report(made, path)
    told = json.loads(path.read_text())
    for key in ("rounds", "capacity_phase"):
        del told["scenario"][key]
    path.write_text(json.dumps(told))
    assert read_report(path) == made


def test_the_simulator_is_given_the_moments_of_all_rounds_but_no_callers_who_pause() -> None:
    opened = scenario(
        Stream(name="callers", arrivals=Poisson(per_second=1.0), phases=("work",)),
        phases=PHASES,
        rounds=3,
        seconds=60.0,
    )
    made = make_plan(opened, 0, SPEED)
    records = [answer(one.number, due=one.at, latency=0.5, phase="work") for one in made.requests]
    told = export(report(records, of=opened))
    assert [one["at"] for one in told["requests"]] == [one.at for one in made.requests]
    assert any(later["at"] - earlier["at"] >= 10 for earlier, later in pairwise(told["requests"]))
    closed = scenario(
        Stream(name="callers", arrivals=Closed(concurrency=2), phases=("work",)),
        phases=PHASES,
        rounds=3,
        seconds=60.0,
    )
    with pytest.raises(ReportError, match="nor have phases"):
        export(report([answer(0, due=0.0, latency=0.5, phase="work")], of=closed))
