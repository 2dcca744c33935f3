"""The study: all that one run of the simulator is told, and sweeps over it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from math import inf
from typing import Any

import numpy as np

from loadtests.simulator.errors import SimulationError
from loadtests.simulator.fleet import Fleet, History
from loadtests.simulator.machine import read_machine
from loadtests.simulator.popularity import Popularity
from loadtests.simulator.settings import FleetSettings
from loadtests.simulator.summary import Summary, summarise, unloaded_seconds
from loadtests.simulator.traffic import ClosedLoop, Mix, OpenLoop, Traffic, poisson

SLO_FACTOR = 3.0
"""A request is served well within this many times what it takes alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Describe one run; the command line has an option for each field.

    rate: requests a second for each replica. callers: callers for each replica who wait for their answers, instead
    of a rate; 0 for none. people, zipf: how many people are asked for, and the exponent of their popularity.
    price: of a replica for an hour. slo: seconds, 0 for three times what each
    request takes alone.
    """

    machine: str = "h100-sd15"
    replicas: int = 1
    router: str = "hash"
    balance: float = 1.25
    cache_bytes: int = 64 << 20
    shared_bytes: int = 0
    people: int = 1_000_000
    zipf: float = 1.0
    rate: float = 4.5
    callers: int = 0
    steps: str = "20"
    guided: float = 1.0
    referenced: float = 1.0
    newcomers: float = 0.0
    batch: float = 0.0
    deadline: float = 0.0
    seconds: float = 120.0
    warmup: float = 30.0
    history: float = 86400.0
    price: float = 1.0
    slo: float = 0.0
    seed: int = 0

    def with_value(self, name: str, text: str) -> Study:
        """Return this study with another value of a field. Raises SimulationError."""
        current = {field.name: getattr(self, field.name) for field in fields(self)}
        if name not in current:
            raise SimulationError("sweep", f"{name} is none of {', '.join(current)}")
        value: str | int | float = text
        if not isinstance(current[name], str):
            value = _number(name, text, whole=isinstance(current[name], int))
        elif name == "steps":
            _step_counts(text)
        return Study(**{**current, name: value})

    def run(self) -> Summary:
        """Simulate. Raises SimulationError."""
        if not self.rate > 0:
            raise SimulationError("rate", f"{self.rate} is not above 0")
        machine = read_machine(self.machine)
        popularity = Popularity(self.people, self.zipf)
        steps = _step_counts(self.steps)
        mix = Mix(
            steps=steps,
            guided=self.guided,
            referenced=self.referenced,
            newcomers=self.newcomers,
            batch=self.batch,
            deadline=self.deadline or None,
        )
        settings = FleetSettings(
            machine=machine,
            replicas=self.replicas,
            router=self.router,
            balance=self.balance,
            cache_bytes=self.cache_bytes,
            shared_bytes=self.shared_bytes,
            history_seconds=self.history,
            warmup_seconds=self.warmup,
            seconds=self.seconds,
            seed=self.seed,
        )
        rate = self.rate * self.replicas
        history = None
        if self.referenced:
            # With others in the batch a request takes about twice as long as alone.
            busy = 2 * unloaded_seconds(machine, steps=round(sum(steps) / len(steps)))
            history = History(popularity=popularity, rate=rate * self.referenced, in_flight_seconds=busy)
        run = Fleet(settings, history).run(self._traffic(mix, popularity, rate))
        alone = {
            (count, rows): SLO_FACTOR * unloaded_seconds(machine, steps=count, rows=rows)
            for count in steps
            for rows in (1, 2)
        }
        return summarise(
            run,
            service_level=lambda request: self.slo or alone[request.steps, request.rows],
            price=self.price,
        )

    def _traffic(self, mix: Mix, popularity: Popularity, rate: float) -> Traffic:
        rng = np.random.default_rng([self.seed, 1])
        until = self.warmup + self.seconds
        if not self.callers:
            return OpenLoop(poisson(mix, popularity, rate=rate, seconds=until, rng=rng))
        requests = poisson(mix, popularity, rate=inf, seconds=until, rng=rng)
        return ClosedLoop(requests, callers=self.callers * self.replicas, until=until)


def _number(name: str, text: str, *, whole: bool) -> int | float:
    """Return what an option says; a whole number may be written as 1e6. Raises SimulationError."""
    try:
        number = float(text)
    except ValueError:
        raise SimulationError(name, f"{text!r} is not a number") from None
    if not whole:
        return number
    if not number.is_integer():
        raise SimulationError(name, f"{text!r} is not a whole number")
    return int(number)


def _step_counts(text: str) -> list[int]:
    counts = [int(_number("steps", each, whole=True)) for each in text.split(",")]
    if min(counts) < 1:
        raise SimulationError("steps", f"{min(counts)} is less than 1")
    return counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One run of a sweep. `took` is the real time that it took, in seconds."""

    series: str
    x: str
    summary: Summary
    took: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Vary one field along the x axis, and another one from curve to curve (none where it is empty).

    Raises SimulationError for values that their field cannot have.
    """

    study: Study
    field: str
    values: Sequence[str]
    series_field: str = ""
    series: Sequence[str] = ("",)

    def __post_init__(self) -> None:
        for _ in self._studies():
            pass  # a wrong value shows now, not after the points before it

    def run(self) -> Iterator[Point]:
        """Yield the points, curve after curve. Raises SimulationError."""
        for series, value, study in self._studies():
            began = time.monotonic()
            summary = study.run()
            yield Point(series=series, x=value, summary=summary, took=time.monotonic() - began)

    def _studies(self) -> Iterator[tuple[str, str, Study]]:
        for series in self.series:
            base = self.study.with_value(self.series_field, series) if self.series_field else self.study
            for value in self.values:
                yield series, value, base.with_value(self.field, value)

    def to_dict(self, points: Sequence[Point]) -> dict[str, Any]:
        """Return what was asked and what came out, for JSON."""
        return {
            "study": asdict(self.study),
            "machine_sources": read_machine(self.study.machine).sources,
            "sweep": {"field": self.field, "values": list(self.values)},
            "series": {"field": self.series_field, "values": list(self.series)},
            "points": [asdict(point) for point in points],
        }
