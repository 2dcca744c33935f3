"""Reading scenario files: TOML in, a checked `Scenario` out, or an error that names file, key and limit."""

from __future__ import annotations

import csv
import re
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import get_args

import msgspec

from loadtests.runner.errors import ScenarioError
from loadtests.runner.measure_name import measure_problem
from loadtests.runner.scenario import Closed, Expectation, Format, Sampler, Scenario, Span, Stream, Trace

SCENARIOS = Path(__file__).resolve().parent.parent / "scenarios"
ALL = "all"
REST_CAPACITY = "rest_capacity"
_PLACE = re.compile(r"^(?P<problem>.*?)(?: - at `\$\.?(?P<key>.*)`)?$", re.DOTALL)
_FIELD = re.compile(r"(?:missing required|contains unknown) field `(?P<field>\w+)`")


def names() -> list[str]:
    """Return the names of the scenarios that come with the project."""
    return sorted(path.stem for path in SCENARIOS.glob("*.toml"))


def load_scenario(name_or_path: str) -> Scenario:
    """Read a scenario by its name, or by the path of a file of one's own. Raises ScenarioError."""
    path = Path(name_or_path)
    if path.suffix != ".toml":
        if name_or_path not in names():
            raise ScenarioError(
                name_or_path, "SCENARIO", f"is none of {', '.join(names())}, and no .toml file"
            )
        path = SCENARIOS / f"{name_or_path}.toml"
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(path, "file", f"cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(path, "syntax", str(error)) from error
    try:
        scenario = msgspec.convert(told, Scenario)
    except msgspec.ValidationError as error:
        raise _located(path, told, error) from error
    for key, problem in _problems(scenario, path):
        raise ScenarioError(path, key, problem)
    return _with_traces(scenario, path)


def _located(path: Path, told: object, error: msgspec.ValidationError) -> ScenarioError:
    match = _PLACE.match(str(error))
    assert match is not None
    key, problem = match["key"] or "", match["problem"]
    if field := _FIELD.search(problem):
        key = f"{key}.{field['field']}".lstrip(".")
    # msgspec says that a word is not among the allowed ones, but not which are.
    for part, allowed in (("samplers", Sampler), ("formats", Format), ("priority", None)):
        if f"{part}[" in key or key.endswith(part):
            words = get_args(allowed) if allowed else ("interactive", "batch")
            problem += f"; the limit is one of {', '.join(words)}"
    if key.endswith("arrivals.kind"):
        problem += "; the limit is one of poisson, bursts, trace, closed"
    return ScenarioError(path, key or "file", problem)


def _problems(scenario: Scenario, path: Path) -> Iterator[tuple[str, str]]:
    if scenario.name != path.stem:
        yield "name", f"is {scenario.name}, but the file is called {path.name}"
    phases = [phase.name for phase in scenario.phases]
    streams = [stream.name for stream in scenario.streams]
    for key, values in (("phases", phases), ("streams", streams)):
        for value in values:
            if value == ALL or values.count(value) > 1:
                yield f"{key}.name", f"{value} is reserved, or there twice"
    yield from _spans("slo", scenario.slo)
    for number, stream in enumerate(scenario.streams):
        yield from _stream_problems(f"streams[{number}]", stream, phases)
    if scenario.capacity_phase:
        yield from _capacity_phase_problems(scenario, phases)
    for number, expectation in enumerate(scenario.expect):
        yield from _expectation_problems(f"expect[{number}]", expectation, phases, streams)


def _stream_problems(key: str, stream: Stream, phases: list[str]) -> Iterator[tuple[str, str]]:
    for phase in stream.phases:
        if phase not in phases:
            yield f"{key}.phases", f"{phase} is none of {', '.join(phases)}"
    arrivals = stream.arrivals
    if isinstance(arrivals, Trace):
        if bool(arrivals.file) == bool(arrivals.offsets):
            yield f"{key}.arrivals.file", "a trace has either a file or offsets"
        if arrivals.rate is not None and arrivals.per_second is not None:
            yield f"{key}.arrivals.rate", "at most one of rate and per_second can be given"
    elif not isinstance(arrivals, Closed) and (arrivals.rate is None) == (arrivals.per_second is None):
        yield f"{key}.arrivals.rate", "exactly one of rate (of the capacity) and per_second is needed"
    if stream.deadline is not None:
        yield from _spans(f"{key}.deadline", stream.deadline)
    if stream.cancel is not None and stream.cancel.after[0] > stream.cancel.after[1]:
        yield f"{key}.cancel.after", f"{stream.cancel.after[0]} is after {stream.cancel.after[1]}"
    for place, (width, height) in enumerate(stream.mix.sizes):
        if (width == 0) != (height == 0):
            yield f"{key}.mix.sizes[{place}]", "width and height are both above 0, or both 0 for the default"


def _capacity_phase_problems(scenario: Scenario, phases: list[str]) -> Iterator[tuple[str, str]]:
    name = scenario.capacity_phase
    if name not in phases:
        yield "capacity_phase", f"{name} is none of {', '.join(phases)}"
    elif not any(name in (stream.phases or phases) for stream in scenario.streams):
        yield "capacity_phase", f"no stream comes in {name}, so it shows no capacity"


def _spans(key: str, span: Span) -> Iterator[tuple[str, str]]:
    if (span.seconds is None) == (span.unloaded is None):
        yield key, "exactly one of seconds and unloaded is needed"


def _expectation_problems(
    key: str, expectation: Expectation, phases: list[str], streams: list[str]
) -> Iterator[tuple[str, str]]:
    if (expectation.at_least is None) == (expectation.at_most is None):
        yield key, "exactly one of at_least and at_most is needed"
    for field in ("of", "against"):
        figure = getattr(expectation, field)
        parts = figure.split(".", 2)
        if len(parts) < 3:
            if field == "of" or figure not in ("", "capacity", REST_CAPACITY, "unloaded"):
                yield f"{key}.{field}", f"{figure!r} is not phase.stream.measure"
        elif parts[0] not in (*phases, ALL):
            yield f"{key}.{field}", f"the phase {parts[0]} is none of {', '.join((*phases, ALL))}"
        elif parts[1] not in (*streams, ALL):
            yield f"{key}.{field}", f"the stream {parts[1]} is none of {', '.join((*streams, ALL))}"
        elif problem := measure_problem(parts[2]):
            # Found here, as a run that is over would be lost with it.
            yield f"{key}.{field}", f"{figure}: {problem}"


def _with_traces(scenario: Scenario, path: Path) -> Scenario:
    streams = []
    for number, stream in enumerate(scenario.streams):
        arrivals = stream.arrivals
        if isinstance(arrivals, Trace):
            key = f"streams[{number}].arrivals"
            if arrivals.file:
                arrivals = read_trace(arrivals, path.parent / arrivals.file, path, f"{key}.file")
            _check_trace(arrivals, path, key)
            if arrivals.people and max(arrivals.people) >= stream.mix.people:
                problem = f"is {stream.mix.people}, but the trace names person {max(arrivals.people)}"
                raise ScenarioError(path, f"streams[{number}].mix.people", problem)
            stream = msgspec.structs.replace(stream, arrivals=arrivals)
        streams.append(stream)
    return msgspec.structs.replace(scenario, streams=tuple(streams))


def read_trace(arrivals: Trace, file: Path, path: Path, key: str) -> Trace:
    """Return the arrivals with the columns of their file. Raises ScenarioError."""
    try:
        with file.open(newline="", encoding="utf-8") as source:
            rows = list(csv.DictReader(source))
        offsets = tuple(float(row["at"]) for row in rows)
        people = tuple(int(row["person"]) for row in rows if row.get("person") not in (None, ""))
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(path, key, f"{file.name} cannot be read: {error}") from error
    except (KeyError, ValueError, TypeError) as error:
        raise ScenarioError(
            path, key, f"{file.name} is no CSV with numbers in a column `at`: {error!r}"
        ) from error
    return msgspec.structs.replace(arrivals, offsets=offsets, people=people)


def _check_trace(arrivals: Trace, path: Path, key: str) -> None:
    offsets = arrivals.offsets
    if len(offsets) < 2 or offsets[0] < 0 or not all(map(isfinite, offsets)) or offsets[-1] <= offsets[0]:
        raise ScenarioError(
            path, f"{key}.offsets", "a trace is at least two moments, from 0 on, over some time"
        )
    if any(later < earlier for earlier, later in pairwise(offsets)):
        raise ScenarioError(path, f"{key}.offsets", "the moments of a trace ascend")
    if arrivals.people and (len(arrivals.people) != len(offsets) or min(arrivals.people) < 0):
        raise ScenarioError(
            path, f"{key}.people", "every arrival of a trace has a person from 0 on, or none has"
        )
