"""Reports: what is written is read again, judged, compared and drawn."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest

from loadtests.__main__ import main
from loadtests.runner.command_export import export
from loadtests.runner.compare import differences, table, warnings
from loadtests.runner.errors import ReportError
from loadtests.runner.page import page
from loadtests.runner.plan import Speed, make_plan
from loadtests.runner.plots import PLOTS
from loadtests.runner.report import Report, read_report, write_report
from loadtests.runner.scenario import Closed, Expectation, Phase, Poisson, Stream
from loadtests.runner.target import Status
from loadtests.runner.text import summary
from loadtests.runner.watch import Sample
from tests.loadtests.building import SPEED, answer, busy_report, report, scenario, stream


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = busy_report()
    path = tmp_path / "some" / "run.json"
    write_report(made, path)
    assert read_report(path) == made


def test_the_json_keeps_to_the_schema(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_report(busy_report(), path)
    told = json.loads(path.read_text())
    schema = msgspec.json.schema(Report)["$defs"]
    assert set(told) == set(schema["Report"]["properties"])
    assert set(told["figures"]["all"]["all"]) == set(schema["Figures"]["properties"])
    first = told["records"][0]
    assert set(schema["Record"]["required"]) <= set(first) <= set(schema["Record"]["properties"])
    assert first["done"] - first["due"] == pytest.approx(0.5)
    assert told["format"] == 1


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"format": 2}, "format"),
        ({"seconds": -1}, "above 0"),
        ({"records": [{}]}, "records"),
        ({"more": 1}, "more"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, change: dict[str, object], problem: str) -> None:
    path = tmp_path / "run.json"
    write_report(busy_report(), path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ReportError, match=problem):
        read_report(path)
    with pytest.raises(ReportError, match="No such file"):
        read_report(tmp_path / "absent.json")


def two_phases(*expect: Expectation) -> Report:
    batch = Stream(name="batch", arrivals=Closed(concurrency=2), phases=("second",))
    load = scenario(
        stream(arrivals=Poisson(rate=0.4)),
        batch,
        seconds=20.0,
        phases=(Phase(name="first"), Phase(name="second")),
        expect=expect,
    )
    records = [answer(n, due=1.0 * n, latency=0.4, phase="first") for n in range(8)]
    records += [answer(8 + n, due=10.0 + n, latency=0.6, phase="second") for n in range(8)]
    records += [answer(16 + n, due=10.0 + n, latency=0.5, phase="second", stream="batch") for n in range(9)]
    return report(records, of=load)


@pytest.mark.parametrize(
    ("expectation", "value", "holds"),
    [
        (
            {"of": "second.callers.latency.p99", "against": "first.callers.latency.p99", "at_most": 1.6},
            1.5,
            True,
        ),
        (
            {"of": "second.callers.latency.p99", "against": "first.callers.latency.p99", "at_most": 1.4},
            1.5,
            False,
        ),
        # Of a capacity of 10, the eight callers of ten seconds left 9.2, whatever their rate was meant to be.
        ({"of": "second.batch.throughput", "against": "rest_capacity", "at_least": 0.09}, 0.9 / 9.2, True),
        ({"of": "all.all.goodput", "against": "capacity", "at_least": 0.2}, 0.125, False),
        ({"of": "first.callers.by_cache.hit.p50", "at_least": 0.0}, None, False),
        ({"of": "first.batch.throughput", "at_most": 1.0}, None, False),
        # Nothing failed, which is a number, and no figure that is missing.
        ({"of": "all.all.statuses.failed", "at_most": 0}, 0, True),
    ],
)
def test_expectations_are_judged(expectation: dict[str, object], value: float | None, holds: bool) -> None:
    made = two_phases(msgspec.convert({"about": "a thing", **expectation}, Expectation))
    (judged,) = made.judgements
    assert (judged.value, judged.holds) == (value if value is None else pytest.approx(value), holds)
    assert ("holds" if holds else "FAILS") in summary(made)


def test_a_figure_that_there_is_not_is_an_error() -> None:
    made = two_phases()
    with pytest.raises(ReportError, match="no figure speed"):
        made.figure("all.all.speed")
    with pytest.raises(ReportError, match="several"):
        made.figure("all.all.latency")
    assert made.figure("unloaded") == SPEED.unloaded


def test_the_table_has_a_line_for_each_phase_and_stream() -> None:
    lines = [line.split("|")[1:3] for line in summary(two_phases()).splitlines() if line.startswith("| ")]
    assert [tuple(cell.strip() for cell in cells) for cells in lines[1:]] == [
        ("first", "callers"),
        ("second", "all"),
        ("second", "callers"),
        ("second", "batch"),
    ]
    assert len([line for line in summary(busy_report()).splitlines() if line.startswith("| ")]) == 2


def test_comparison_is_the_second_over_the_first() -> None:
    first = busy_report()
    faster = report([msgspec.structs.replace(one, done=one.due + one.latency / 2) for one in first.records])
    found = {one.figure: one for one in differences(first, faster)}
    assert found["all.all.latency.p50"].ratio == pytest.approx(0.5)
    assert found["all.all.by_cache.hit.p50"].ratio == pytest.approx(0.5)
    assert found["capacity"].ratio == 1
    # Of one without readings there is no share of padding.
    assert (found["all.all.padded_share"].first, found["all.all.padded_share"].ratio) == (0.1, None)
    assert "| all.all.latency.p50 | 0.6950 | 0.3475 | 0.5 |".replace("0.6950", "0.695") in table(
        first, faster, ("A", "B")
    )


def test_comparison_names_what_else_differs() -> None:
    first = busy_report()
    other = msgspec.structs.replace(first, seed=7, seconds=99.0)
    assert [text.split(":")[0] for text in warnings(first, other)] == [
        "the seeds differ",
        "the durations differ",
    ]
    assert list(warnings(first, first)) == []
    # Rates that are given do not follow the capacity.
    assert (
        list(warnings(first, msgspec.structs.replace(first, speed=Speed(capacity=20.0, unloaded=0.5)))) == []
    )
    with pytest.raises(ReportError, match="in common"):
        list(differences(first, report([], of=scenario(stream("others")))))


@pytest.mark.parametrize(
    ("capacity", "told"),
    [(10.0, []), (10.1, []), (12.0, ["the loads differ: callers at 4 and 4.8 requests/s"])],
)
def test_comparison_tells_loads_that_differ_by_the_capacity(capacity: float, told: list[str]) -> None:
    first = report([answer(0, due=0.0, latency=0.5)], of=scenario(stream(arrivals=Poisson(rate=0.4))))
    other = msgspec.structs.replace(first, speed=Speed(capacity=capacity, unloaded=0.5))
    assert list(warnings(first, other)) == told


def test_compare_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "run.json")
    write_report(busy_report(), Path(path))
    assert main(["compare", path, path]) == 0
    assert "| all.all.goodput |" in capsys.readouterr().out
    assert main(["compare", path, str(tmp_path / "absent.json")]) == 2
    assert "absent.json" in capsys.readouterr().err


class Page(HTMLParser):
    """Collects what a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.outside: list[str] = []
        self.used: list[str] = []
        self.open: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "br", "link", "img"):
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "clip-path"):
                (self.used if "#" in (value or "") else self.outside).append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open[-1:] == [tag]:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else() -> None:
    text = page(busy_report())
    found = Page(text)
    assert found.open == []
    assert found.outside == []
    assert found.tags.count("svg") == len(PLOTS)
    assert not {"script", "link", "img", "iframe"} & set(found.tags)
    assert "@import" not in text
    assert len(set(found.ids)) == len(found.ids)
    pointed = {re.sub(r"^url\(|\)$", "", one).lstrip("#") for one in found.used}
    assert pointed <= set(found.ids)
    # Colours of the page, by day and by night.
    assert "currentColor" in text
    assert "#010203" not in text


def test_the_page_of_a_run_without_answers_says_so() -> None:
    failed = {"status": Status.FAILED, "reason": "INTERNAL", "message": "<b>no</b>", "images": 0}
    found = page(report([answer(0, due=0.0, latency=0.1, **failed)]))
    assert "&lt;b&gt;no&lt;/b&gt;" in found
    Page(found)
    empty = page(report([]))
    assert Page(empty).tags.count("svg") == 1  # of what was offered
    assert "Refusals: nothing was refused." in empty


def test_the_slope_of_the_memory_is_told_of_a_long_run_only() -> None:
    def drawn(seconds: float) -> str:
        samples = [
            Sample(at=at, values={"tree_memory": 8e8 + 1000 * at}) for at in np.linspace(0, seconds, 50)
        ]
        return page(
            report([answer(0, due=0.0, latency=0.1)], samples=samples, of=scenario(stream(), seconds=seconds))
        )

    assert "+3.6 MB/h" in drawn(400.0)
    assert "MB/h" not in drawn(40.0)


def test_the_same_report_gives_the_same_page() -> None:
    assert page(busy_report()) == page(busy_report())


def test_a_run_is_exported_with_the_plan_that_was_sent() -> None:
    load = scenario(stream(prompts=3, newcomers=0.2, guidance_scales=(1.0, 5.0)), seconds=20.0)
    made = make_plan(load, 0, SPEED)
    records = [answer(one.number, due=one.at, latency=0.5) for one in made.requests]
    told = export(report(records, of=load))
    assert [one["at"] for one in told["requests"]] == [one.at for one in made.requests]
    assert [one["brings_bytes"] for one in told["requests"]] == [one.brings_picture for one in made.requests]
    assert {one["guided"] for one in told["requests"]} == {True, False}
    assert {one["prompt"] for one in told["requests"]} == {0, 1, 2}
    assert (told["callers"], told["known"]) == (0, made.known_people)
    measured = told["calibration"]
    assert (measured["unloaded"], measured["capacity"]) == (SPEED.unloaded, SPEED.capacity)
    span = records[-1].done - records[0].due
    assert told["real"]["throughput"] == pytest.approx(len(records) / span)
    assert (told["real"]["p50"], told["real"]["p99"]) == (pytest.approx(0.5), pytest.approx(0.5))


def test_a_run_that_cannot_be_exported_says_why() -> None:
    closed = scenario(stream(arrivals=Closed(concurrency=2)), seconds=2.0)
    made = export(report([answer(0, due=0.0, latency=0.5), answer(1, due=0.5, latency=0.5)], of=closed))
    assert (made["callers"], len(made["requests"])) == (2, 2)
    with pytest.raises(ReportError, match="share a run"):
        export(two_phases())
    with pytest.raises(ReportError, match="no request"):
        export(report([]))
