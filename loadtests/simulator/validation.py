"""Validation: the simulator against a real run of the same requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from engine.scheduling import Priority
from engine.scheduling.simulate import Outcome
from loadtests.simulator.call import Call
from loadtests.simulator.errors import SimulationError
from loadtests.simulator.fleet import Fleet
from loadtests.simulator.machine import Machine
from loadtests.simulator.request import Request
from loadtests.simulator.settings import FleetSettings
from loadtests.simulator.summary import Latency
from loadtests.simulator.traffic import ClosedLoop, OpenLoop, Traffic

TOLERANCE = 0.10
ALONE = 100
"""Requests whose median is the simulated unloaded latency."""


class PlannedRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request of a plan, as files have it; see `Request`."""

    at: float
    person: int | None = None
    brings_bytes: bool = False
    prompt: int | None = None
    images: int = 1
    steps: int = 20
    guided: bool = True
    width: int | None = None
    height: int | None = None
    priority: str = "interactive"
    deadline: float | None = None
    cancel_after: float | None = None
    deterministic: bool = False

    def request(self, number: int) -> Request:
        """Return it as the simulator takes it. Raises SimulationError."""
        if self.priority.upper() not in Priority.__members__:
            raise SimulationError("priority", f"{self.priority} is neither interactive nor batch")
        return Request(
            id=number,
            at=self.at,
            person=self.person,
            brings_bytes=self.brings_bytes,
            prompt=self.prompt,
            images=self.images,
            steps=self.steps,
            rows=2 if self.guided else 1,
            width=self.width,
            height=self.height,
            priority=Priority[self.priority.upper()],
            deadline=self.deadline,
            cancel_after=self.cancel_after,
            deterministic=self.deterministic,
        )


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
    measured_from: requests before this second are left out of the latencies.
    unloaded: seconds of a request that was alone, just before the run; None where nobody measured it.
    """

    name: str
    requests: tuple[PlannedRequest, ...]
    real: Figures
    callers: int = 0
    known: tuple[int, ...] = ()
    measured_from: float = 0.0
    unloaded: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Simulated and real figures of one run."""

    name: str
    simulated: Figures
    real: Figures
    unloaded: tuple[float, float] | None = None
    """Simulated and real seconds of a request that is alone. Where they differ, the machine was not as fast when it was
    measured as when it ran, and the rest says little about the simulator."""

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
    """Simulate a real run on one replica and compare. Raises SimulationError."""
    if not run.requests:
        raise SimulationError("requests", f"{run.name} has none")
    requests = [planned.request(number) for number, planned in enumerate(run.requests)]
    last = max(request.at for request in requests)
    settings = FleetSettings(machine=machine, warmup_seconds=0.0, seconds=last + 1.0)
    traffic: Traffic = OpenLoop(sorted(requests, key=lambda request: request.at))
    if run.callers:
        traffic = ClosedLoop(requests, callers=run.callers, until=float("inf"))
    fleet = Fleet(settings, known=run.known)
    calls = fleet.run(traffic).calls
    return Comparison(
        name=run.name,
        simulated=_figures(calls, run.measured_from),
        real=run.real,
        unloaded=None if run.unloaded is None else (_unloaded(settings, requests), run.unloaded),
    )


def _unloaded(settings: FleetSettings, requests: Sequence[Request]) -> float:
    """Return the median of some of the requests, each alone at a replica that knows everybody."""
    alone = [
        replace(request, deadline=None, cancel_after=None, brings_bytes=False) for request in requests[:ALONE]
    ]
    people = sorted({request.person for request in alone if request.person is not None})
    fleet = Fleet(settings, known=people)
    calls = fleet.run(ClosedLoop(alone, callers=1, until=float("inf"))).calls
    return Latency.of(call.latency for call in calls).p50


def table(comparisons: Sequence[Comparison]) -> str:
    """Return the comparison as a table in Markdown."""
    lines = [
        "| run | unloaded, s | throughput, images/s | p50, s | p95, s | p99, s | within 10% |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in comparisons:
        alone = "-"
        if one.unloaded is not None:
            simulated, real = one.unloaded
            alone = f"{simulated:.3f} for {real:.3f} ({simulated / real - 1:+.1%})"
        cells = [
            f"{getattr(one.simulated, name):.3f} for {getattr(one.real, name):.3f} ({one.off(name):+.1%})"
            for name in ("throughput", "p50", "p95", "p99")
        ]
        lines.append(f"| {one.name} | {alone} | {' | '.join(cells)} | {'yes' if one.holds else 'NO'} |")
    return "\n".join(lines)


def _figures(calls: Sequence[Call], measured_from: float) -> Figures:
    finished = [call for call in calls if call.outcome is Outcome.FINISHED]
    # As of the real run: what was refused or given up last is no answer.
    ends = [call.ended for call in finished if call.ended is not None]
    if not finished:
        raise SimulationError("requests", "none of them finishes in the simulation")
    latency = Latency.of(call.latency for call in finished if call.request.at >= measured_from)
    seconds = max(ends) - min(call.request.at for call in calls)
    images = sum(call.request.images for call in finished)
    return Figures(throughput=images / seconds, p50=latency.p50, p95=latency.p95, p99=latency.p99)
