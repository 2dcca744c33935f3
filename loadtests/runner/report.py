"""The report: everything of a run, as the JSON file has it."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import msgspec

from loadtests.runner.errors import ReportError
from loadtests.runner.measures import Figures, figures
from loadtests.runner.plan import Speed
from loadtests.runner.record import Record
from loadtests.runner.scenario import Closed, Expectation, Scenario
from loadtests.runner.scenario_file import ALL, REST_CAPACITY
from loadtests.runner.watch import Sample

ALWAYS_EXPECTED = (
    Expectation(about="no request failed", of=f"{ALL}.{ALL}.statuses.failed", at_most=0),
    Expectation(about="no request was left unfinished", of=f"{ALL}.{ALL}.statuses.unfinished", at_most=0),
)
"""Of every run. What was refused, expired or cancelled is an outcome of its own and no failure."""


class Machine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the generator ran."""

    cpus: int
    system: str
    python: str


class Judgement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An expectation and what came of it; `value` is None, and does not hold, where the run has no such figure."""

    expectation: Expectation
    value: float | None
    holds: bool


class Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run. Moments in seconds from the start of the load; `started` is that start, in ISO 8601.

    calibrated: the speed was measured before this run, not given.
    figures: by phase and stream, `all` among both.
    notes: what a reader must know to trust it.
    calibration: readings of it (`calibration.calibrate`), with moments from its own start; none where the speed was
        given, or there was nothing to read.
    """

    scenario: Scenario
    seed: int
    target: str
    started: str
    seconds: float
    speed: Speed
    calibrated: bool
    slo_seconds: float
    machine: Machine
    figures: dict[str, dict[str, Figures]]
    judgements: tuple[Judgement, ...]
    notes: tuple[str, ...]
    samples: tuple[Sample, ...]
    records: tuple[Record, ...]
    calibration: tuple[Sample, ...] = ()
    format: Literal[1] = 1

    def figure(self, path: str) -> float | None:
        """Return a figure by its name; see `Expectation`. Raises ReportError when there is no such name."""
        return find_figure(self.figures, self.speed, path)


def all_figures(
    scenario: Scenario, speed: Speed, records: tuple[Record, ...], samples: tuple[Sample, ...]
) -> dict[str, dict[str, Figures]]:
    """Sum up by phase, of all its turns, and by stream; streams that a phase does not have are left out."""
    turns = scenario.turns()
    slo = speed.seconds(scenario.slo)
    table: dict[str, dict[str, Figures]] = {}
    for phase in (ALL, *turns):
        in_phase = [turn for each in turns.values() for turn in each] if phase == ALL else turns[phase]
        table[phase] = {}
        for stream in (ALL, *(one.name for one in scenario.streams)):
            of_stream = [one for one in records if stream in (ALL, one.stream)]
            due = [one for one in of_stream if phase in (ALL, one.phase)]
            if due or stream == ALL:
                table[phase][stream] = figures(due, in_phase, slo, answered=of_stream, samples=samples)
    return table


def judge_all(
    table: dict[str, dict[str, Figures]], scenario: Scenario, speed: Speed
) -> tuple[Judgement, ...]:
    """Hold a run against what its scenario expects, and against what is expected of every run."""
    return tuple(judge(one, table, scenario, speed) for one in (*scenario.expect, *ALWAYS_EXPECTED))


def judge(
    expectation: Expectation, table: dict[str, dict[str, Figures]], scenario: Scenario, speed: Speed
) -> Judgement:
    """Hold a run against an expectation."""
    value = find_figure(table, speed, expectation.of)
    if expectation.against and value is not None:
        base = (
            _rest_capacity(table, scenario, speed, expectation.of.partition(".")[0])
            if expectation.against == REST_CAPACITY
            else find_figure(table, speed, expectation.against)
        )
        value = value / base if base else None
    holds = value is not None and (
        (expectation.at_least is None or value >= expectation.at_least)
        and (expectation.at_most is None or value <= expectation.at_most)
    )
    return Judgement(expectation=expectation, value=value, holds=holds)


def find_figure(table: dict[str, dict[str, Figures]], speed: Speed, path: str) -> float | None:
    """Return a figure by its name. None where there was nothing to measure; ReportError for a name that is none, or
    `rest_capacity`, which depends on what is held against it.
    """
    if path == "unloaded":
        return speed.unloaded
    if path == "capacity":
        return speed.capacity
    if path == REST_CAPACITY:
        raise ReportError(f"{path}: can only be held against, as it is of the other figure's phase")
    phase, _, rest = path.partition(".")
    stream, _, measure = rest.partition(".")
    value: Any = table.get(phase, {}).get(stream)
    for part in measure.split("."):
        if value is None:
            return None
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, msgspec.Struct) and part in value.__struct_fields__:
            value = getattr(value, part)
        else:
            raise ReportError(f"{path}: there is no figure {part}")
    if value is not None and not isinstance(value, (int, float)):
        raise ReportError(f"{path}: is no number but several")
    return value


def _rest_capacity(
    table: dict[str, dict[str, Figures]], scenario: Scenario, speed: Speed, phase: str
) -> float:
    """Return images a second: the capacity less what came at a rate in a phase, by chance more or less than planned.

    Requests count with the mean images of their mix; calibration's are of the streams in turn (`plan.samples`).
    """
    capacity = (
        table[scenario.capacity_phase][ALL].throughput
        if scenario.capacity_phase
        else speed.capacity * fmean(stream.mix.mean_images for stream in scenario.streams)
    )
    return capacity - sum(
        table[phase][stream.name].offered * stream.mix.mean_images
        for stream in scenario.streams
        if not isinstance(stream.arrivals, Closed) and stream.name in table[phase]
    )


def write_report(report: Report, path: Path) -> None:
    """Write a report as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(report) + b"\n")


def read_report(path: Path) -> Report:
    """Read a report. Raises ReportError."""
    try:
        report = msgspec.json.decode(path.read_bytes(), type=Report)
    except (OSError, msgspec.MsgspecError) as error:
        raise ReportError(f"{path}: {error}") from error
    if not isfinite(report.seconds) or report.seconds <= 0:
        raise ReportError(f"{path}: seconds: {report.seconds} is not above 0")
    return report
