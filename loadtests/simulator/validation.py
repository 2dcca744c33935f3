"""Validation: the simulator against a real run of the same requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from engine.scheduling.simulate import Outcome
from loadtests.simulator.call import Call
from loadtests.simulator.errors import SimulationError
from loadtests.simulator.fitting import Calibration, Fit, calibration_ticks, fit
from loadtests.simulator.fleet import Fleet
from loadtests.simulator.machine import Machine
from loadtests.simulator.pace import STEADY, OnTick, Pace, SimulatedTick, TickTimes, nobody, pace_of
from loadtests.simulator.planned import PlannedRequest
from loadtests.simulator.settings import FleetSettings
from loadtests.simulator.summary import Latency
from loadtests.simulator.traffic import ClosedLoop, OpenLoop, Traffic

TOLERANCE = 0.10


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What is compared: images a second from the first request to the last answer, and seconds of latency."""

    throughput: float
    p50: float
    p95: float
    p99: float


class RealRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A real run: what was asked, and what came of it.

    callers: 0 where the requests came at their times; else so many callers who each waited for their answer.
    known: people whose reference the server had before the run.
    calibration: what the server did just before the run; None where nobody measured it.
    ticks: how long the engine's ticks took, in the calibration and in the run; None where nobody read it.
    """

    name: str
    requests: tuple[PlannedRequest, ...]
    real: Figures
    callers: int = 0
    known: tuple[int, ...] = ()
    calibration: Calibration | None = None
    ticks: TickTimes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Simulated and real figures of one run.

    fit: how the machine was brought to the speed that it had in the calibration. pace: how that changed in the run, and
    steady: what is simulated when it does not.
    """

    name: str
    simulated: Figures
    real: Figures
    fit: Fit | None = None
    pace: Pace | None = None
    steady: Figures | None = None

    def off(self, figure: str) -> float:
        """Return how far the simulated figure is off, as a share of the real one, signed."""
        real: float = getattr(self.real, figure)
        simulated: float = getattr(self.simulated, figure)
        return simulated / real - 1

    @property
    def holds(self) -> bool:
        """Whether throughput and p95 are within the tolerance."""
        return all(abs(self.off(figure)) <= TOLERANCE for figure in ("throughput", "p95"))


def read_run(path: Path) -> RealRun:
    """Read a real run. Raises SimulationError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=RealRun)
    except (OSError, msgspec.MsgspecError) as error:
        raise SimulationError("validate", f"{path}: {error}") from error


def validate(run: RealRun, machine: Machine) -> Comparison:
    """Simulate a real run on one replica and compare. Raises SimulationError.

    Where the run was calibrated, the machine is first given the speed that it had then (`fitting`), and where the time
    of ticks was read, from moment to moment the one that it had in the run (`pace`).
    """
    if not run.requests:
        raise SimulationError("requests", f"{run.name} has none")
    found: Fit | None = None
    if run.calibration is not None:
        found = fit(machine, run.calibration)
        machine = found.machine
    requests = [planned.request(number) for number, planned in enumerate(run.requests)]
    last = max(request.at for request in requests)
    settings = FleetSettings(machine=machine, warmup_seconds=0.0, seconds=last + 1.0)

    def simulated(pace: Pace, on_tick: OnTick = nobody) -> Figures:
        traffic: Traffic = OpenLoop(sorted(requests, key=lambda request: request.at))
        if run.callers:
            traffic = ClosedLoop(requests, callers=run.callers, until=float("inf"))
        return _figures(Fleet(settings, known=run.known, pace=pace, on_tick=on_tick).run(traffic).calls)

    ticks: list[SimulatedTick] = []
    steady = simulated(STEADY, ticks.append)
    pace: Pace | None = None
    if run.ticks is not None and run.calibration is not None:
        pace = pace_of(run.ticks, calibration_ticks(machine, run.calibration), ticks)
    return Comparison(
        name=run.name,
        simulated=steady if pace is None else simulated(pace),
        real=run.real,
        fit=found,
        pace=pace,
        steady=None if pace is None else steady,
    )


def table(comparisons: Sequence[Comparison]) -> str:
    """Return the comparison as a table in Markdown."""
    lines = [
        "| run | machine fitted | pace | images/s | p50, s | p95, s | p99, s | p95 if steady, s | within 10% |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in comparisons:
        fitted = "-" if one.fit is None else str(one.fit)
        cells = [
            f"{getattr(one.simulated, name):.3f} for {getattr(one.real, name):.3f} ({one.off(name):+.1%})"
            for name in ("throughput", "p50", "p95", "p99")
        ]
        steady = (
            "-" if one.steady is None else f"{one.steady.p95:.3f} ({one.steady.p95 / one.real.p95 - 1:+.1%})"
        )
        paced = "-" if one.pace is None else str(one.pace)
        cells = [one.name, fitted, paced, *cells, steady, "yes" if one.holds else "NO"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _figures(calls: Sequence[Call]) -> Figures:
    finished = [call for call in calls if call.outcome is Outcome.FINISHED]
    # As of the real run: what was refused or given up last is no answer.
    ends = [call.ended for call in finished if call.ended is not None]
    if not finished:
        raise SimulationError("requests", "none of them finishes in the simulation")
    latency = Latency.of(call.latency for call in finished)
    seconds = max(ends) - min(call.request.at for call in calls)
    images = sum(call.request.images for call in finished)
    return Figures(throughput=images / seconds, p50=latency.p50, p95=latency.p95, p99=latency.p99)
