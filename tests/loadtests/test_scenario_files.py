"""Scenario files: those of the project are sound, and wrong ones are refused by file, key and limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.runner.errors import ScenarioError
from loadtests.runner.plan import Speed, make_plan
from loadtests.runner.report import all_figures, find_figure
from loadtests.runner.scenario import Trace
from loadtests.runner.scenario_file import REST_CAPACITY, load_scenario, names

NAMED = (
    "steady",
    "burst",
    "mixed",
    "cached-reference",
    "cold-references",
    "interactive-over-batch",
    "overload-3x",
    "soak",
)
GOOD = """
name = "mine"
about = "Mine."
seconds = 10
[[streams]]
name = "callers"
arrivals = { kind = "poisson", rate = 0.5 }
"""


def test_the_named_scenarios_are_there() -> None:
    assert set(NAMED) <= set(names())


@pytest.mark.parametrize("name", names())
def test_every_scenario_loads_and_plans(name: str) -> None:
    scenario = load_scenario(name)
    speed = Speed(capacity=4.0, unloaded=0.3)
    plan = make_plan(scenario, 0, speed)
    assert {request.stream for request in plan.requests} == {stream.name for stream in scenario.streams}
    phases = [phase.name for phase in scenario.phases]
    assert {request.phase for request in plan.requests} == {
        name for stream in scenario.streams for name in stream.phases or phases
    }
    # What it expects are figures that there are.
    table = all_figures(scenario, speed, (), ())
    for expectation in scenario.expect:
        find_figure(table, speed, expectation.of)
        if expectation.against not in ("", REST_CAPACITY):
            find_figure(table, speed, expectation.against)


def written(folder: Path, text: str, name: str = "mine.toml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    assert load_scenario(written(tmp_path, GOOD)).seconds == 10


@pytest.mark.parametrize(
    ("old", "new", "key", "problem"),
    [
        ("seconds = 10", "seconds = 0", "seconds", "> 0"),
        ("seconds = 10", "", "seconds", "missing"),
        ("seconds = 10", 'seconds = "ten"', "seconds", "float"),
        ("seconds = 10", "seconds = 10\nsecnds = 1", "secnds", "unknown"),
        ("seconds = 10", "seconds = 10\nrounds = 0", "rounds", ">= 1"),
        ("seconds = 10", "seconds = 10\nrounds = 1001", "rounds", "<= 1000"),
        ("seconds = 10", "seconds = 10\nrounds = 1.5", "rounds", "int"),
        ("seconds = 10", "seconds = 10\ncapacity_phase = 'full'", "capacity_phase", "full is none of load"),
        ("seconds = 10", "seconds = 10\ncapacity_phase = 'all'", "capacity_phase", "all is none of load"),
        (
            "seconds = 10\n[[streams]]",
            "seconds = 9\ncapacity_phase = 'b'\nphases = [{name = 'a'}, {name = 'b'}]\n[[streams]]\nphases = ['a']",
            "capacity_phase",
            "no stream comes in b",
        ),
        ("rate = 0.5", "rate = -1", "streams[0].arrivals.rate", "> 0"),
        ("rate = 0.5", "rate = 1, per_second = 2", "streams[0].arrivals.rate", "exactly one"),
        (", rate = 0.5", "", "streams[0].arrivals.rate", "exactly one"),
        ("poisson", "weekly", "streams[0].arrivals.kind", "poisson, bursts, trace, closed"),
        ('"mine"', '"other"', "name", "mine.toml"),
        ('"callers"', '"all"', "streams.name", "reserved"),
        ('"callers"', '"Call ers"', "streams[0].name", "regex"),
        ("rate = 0.5 }", "rate = 0.5 }\nphases = ['late']", "streams[0].phases", "none of load"),
        ("rate = 0.5 }", "rate = 0.5 }\npriority = 'low'", "streams[0].priority", "interactive, batch"),
        ("rate = 0.5 }", "rate = 0.5 }\ndeadline = {}", "streams[0].deadline", "exactly one"),
        ("rate = 0.5 }", "rate = 0.5 }\ncancel = { share = 2 }", "streams[0].cancel.share", "<= 1"),
        (
            "rate = 0.5 }",
            "rate = 0.5 }\ncancel = { share = 1, after = [2, 1] }",
            "streams[0].cancel.after",
            "after",
        ),
        ("rate = 0.5 }", "rate = 0.5 }\n[streams.mix]\nzipf = 9", "streams[0].mix.zipf", "<= 4"),
        ("rate = 0.5 }", "rate = 0.5 }\n[streams.mix]\nsteps = []", "streams[0].mix.steps", ">= 1"),
        (
            "rate = 0.5 }",
            "rate = 0.5 }\n[streams.mix]\nsamplers = ['heun']",
            "streams[0].mix.samplers[0]",
            "ddim, euler",
        ),
        (
            "rate = 0.5 }",
            "rate = 0.5 }\n[streams.mix]\nsizes = [[0, 64]]",
            "streams[0].mix.sizes[0]",
            "both 0",
        ),
        (
            "rate = 0.5 }",
            "rate = 0.5 }\n[[expect]]\nabout = ''\nof = 'all.nobody.goodput'\nat_least = 1",
            "expect[0].of",
            "none of callers, all",
        ),
        (
            "rate = 0.5 }",
            "rate = 0.5 }\n[[expect]]\nabout = ''\nof = 'all.all.goodput'",
            "expect[0]",
            "exactly one",
        ),
        *(
            (
                "rate = 0.5 }",
                f"rate = 0.5 }}\n[[expect]]\nabout = ''\nof = 'all.callers.{measure}'\nat_least = 1",
                "expect[0].of",
                f"all.callers.{measure}: {problem}",
            )
            for measure, problem in (
                ("latency.p97", "the figure 'p97' is none of count, mean, p50"),
                ("speed", "the figure 'speed' is none of seconds, sent"),
                ("latency.p50.x", "the figure 'x' cannot be, as p50 is a number"),
                ("latency", "latency is no number but several"),
                ("by_cache.hti.p50", "the figure 'hti' is none of hit, miss"),
                ("refusals.OVERLOADED", "OVERLOADED is no number but several"),
            )
        ),
        (
            "rate = 0.5 }",
            "rate = 0.5 }\n[[expect]]\nabout = ''\nof = 'all.all.goodput'\nagainst = 'all.all.god'\nat_least = 1",
            "expect[0].against",
            "'god' is none of",
        ),
        ("about", "= =", "syntax", "line"),
    ],
)
def test_a_wrong_file_is_refused_by_file_key_and_limit(
    tmp_path: Path, old: str, new: str, key: str, problem: str
) -> None:
    path = written(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path)
    assert caught.value.file == path
    assert caught.value.key == key
    assert problem in caught.value.problem


def test_an_unknown_name_is_told_the_known_ones() -> None:
    with pytest.raises(ScenarioError, match=r"none of .*steady"):
        load_scenario("stedy")


TRACED = GOOD.replace('kind = "poisson", rate = 0.5', 'kind = "trace", file = "mine.csv"')


def test_a_trace_comes_from_its_file(tmp_path: Path) -> None:
    written(tmp_path, "at,person\n0.5,3\n1,4\n", "mine.csv")
    arrivals = load_scenario(written(tmp_path, TRACED)).streams[0].arrivals
    assert isinstance(arrivals, Trace)
    assert (arrivals.offsets, arrivals.people) == ((0.5, 1.0), (3, 4))


@pytest.mark.parametrize(
    ("text", "key", "problem"),
    [
        ("when\n1\n2\n", "streams[0].arrivals.file", "column `at`"),
        ("at\none\n", "streams[0].arrivals.file", "numbers"),
        ("at\n1\n", "streams[0].arrivals.offsets", "at least two"),
        ("at\n1\n3\n2\n4\n", "streams[0].arrivals.offsets", "ascend"),
        ("at\n1\nnan\n", "streams[0].arrivals.offsets", "from 0 on"),
        ("at,person\n1,2\n2,\n", "streams[0].arrivals.people", "every arrival"),
        ("at,person\n1,2\n2,64\n", "streams[0].mix.people", "64"),
        (None, "streams[0].arrivals.file", "cannot be read"),
    ],
)
def test_a_wrong_trace_is_refused(tmp_path: Path, text: str | None, key: str, problem: str) -> None:
    if text is not None:
        written(tmp_path, text, "mine.csv")
    with pytest.raises(ScenarioError) as caught:
        load_scenario(written(tmp_path, TRACED))
    assert (caught.value.key, problem in caught.value.problem) == (key, True), caught.value
