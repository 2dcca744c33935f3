"""Fitting: a machine that was measured at one time, at the speed that it had at another.

A shared machine is a quarter faster at one hour than at the next, and queues make much of little. What the runner
measured just before a real run, some requests by themselves and then a closed loop, says how fast the machine was then;
the run itself takes no part.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from loadtests.simulator.errors import SimulationError
from loadtests.simulator.fleet import Fleet
from loadtests.simulator.machine import Machine
from loadtests.simulator.pace import OnTick, SimulatedTick, nobody
from loadtests.simulator.planned import PlannedRequest
from loadtests.simulator.request import Request
from loadtests.simulator.settings import FleetSettings
from loadtests.simulator.traffic import ClosedLoop

Positive = Annotated[float, Meta(gt=0)]

ROUNDS = 6
FELT = 0.5
"""Small ticks are fitted where making them longer lengthens the requests that were alone by at least half as much."""
LEAST, MOST = 0.2, 5.0
"""Factors beyond these are no other speed of the same machine."""


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a server did just before a run, and with which requests; their moments do not count.

    alone: one after the other, `unloaded` seconds in the median.
    saturated: by `callers` who asked again at once for `seconds`, `capacity` a second; more than were needed.
    """

    alone: Annotated[tuple[PlannedRequest, ...], Meta(min_length=1)]
    unloaded: Positive
    saturated: Annotated[tuple[PlannedRequest, ...], Meta(min_length=1)]
    callers: Annotated[int, Meta(ge=1)]
    seconds: Positive
    capacity: Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A machine at its speed of then. `slowdown` is over the file's, `small` that of the ticks below the largest bucket
    besides; `unloaded` is what it takes for a request that is alone, in the simulation and then, in seconds. The two
    differ where no factor could bring them together.
    """

    machine: Machine
    slowdown: float
    small: float
    unloaded: tuple[float, float]

    def __str__(self) -> str:
        """Return the factors, and how well they do."""
        simulated, real = self.unloaded
        return f"{self.slowdown:.2f}, small ticks {self.small:.2f}; alone {simulated:.3f} for {real:.3f} s"


def fit(machine: Machine, calibration: Calibration) -> Fit:
    """Return the machine that does in the simulation what the server did. Raises SimulationError.

    Two figures, two factors: one on all that the engine does, for the closed loop; one on the ticks of the smaller
    buckets, where those are what a request that is alone takes.
    """
    slowdown = small = 1.0
    around = machine.arrive_seconds + machine.answer_seconds
    longer = _unloaded(_scaled(machine, 1.0, 1.1), calibration) / _unloaded(machine, calibration) - 1
    takes_small = longer >= FELT * 0.1
    for _ in range(ROUNDS):
        fitted = _scaled(machine, slowdown, small)
        slowdown *= _capacity(fitted, calibration) / calibration.capacity
        if takes_small:
            alone = _unloaded(_scaled(machine, slowdown, small), calibration)
            small *= max(calibration.unloaded - around, 0.0) / (alone - around)
        if not all(LEAST <= factor <= MOST for factor in (slowdown, small)):
            raise SimulationError("calibration", "the server was another machine than that of the file")
    fitted = _scaled(machine, slowdown, small)
    unloaded = _unloaded(fitted, calibration), calibration.unloaded
    return Fit(machine=fitted, slowdown=slowdown, small=small, unloaded=unloaded)


def calibration_ticks(machine: Machine, calibration: Calibration) -> list[SimulatedTick]:
    """Return the ticks of a calibration on a machine: of the requests by themselves, and of the closed loop."""
    ticks: list[SimulatedTick] = []
    _served(machine, calibration.alone, callers=1, until=float("inf"), on_tick=ticks.append)
    callers, until = calibration.callers, calibration.seconds
    _served(machine, calibration.saturated, callers=callers, until=until, on_tick=ticks.append)
    return ticks


def _scaled(machine: Machine, slowdown: float, small: float) -> Machine:
    ticks = []
    for costs in machine.ticks:
        *smaller, largest = sorted(costs.seconds)
        most = costs.seconds[largest]
        seconds = {bucket: min(small * costs.seconds[bucket], most) for bucket in smaller}
        ticks.append(msgspec.structs.replace(costs, seconds={**seconds, largest: most}))
    return msgspec.structs.replace(machine, slowdown=slowdown * machine.slowdown, ticks=tuple(ticks))


def _unloaded(machine: Machine, calibration: Calibration) -> float:
    calls = _served(machine, calibration.alone, callers=1, until=float("inf"))
    return median(ended - at for at, ended in calls)


def _capacity(machine: Machine, calibration: Calibration) -> float:
    """Return requests a second as ``loadtests.runner.calibration`` reads them: the slope of the answers."""
    calls = _served(machine, calibration.saturated, callers=calibration.callers, until=calibration.seconds)
    ends = [ended for _, ended in calls if ended <= calibration.seconds]
    if len(set(ends)) < 2:
        raise SimulationError("calibration", f"{len(ends)} answers in {calibration.seconds:g} s tell no rate")
    return float(np.polyfit(ends, np.arange(len(ends)), 1)[0])


def _served(
    machine: Machine,
    planned: tuple[PlannedRequest, ...],
    *,
    callers: int,
    until: float,
    on_tick: OnTick = nobody,
) -> list[tuple[float, float]]:
    """Return when each request was sent and answered, in order of the answers, at a replica that knows everybody."""
    requests: list[Request] = [
        replace(one.request(number), deadline=None, cancel_after=None, brings_bytes=False)
        for number, one in enumerate(planned)
    ]
    known = sorted({request.person for request in requests if request.person is not None})
    fleet = Fleet(FleetSettings(machine=machine, warmup_seconds=0.0), known=known, on_tick=on_tick)
    calls = fleet.run(ClosedLoop(requests, callers=callers, until=until)).calls
    served = [(call.request.at, call.ended) for call in calls if call.ended is not None]
    return sorted(served, key=lambda times: times[1])
