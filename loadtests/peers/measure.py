"""Load on one side, by the runner: one call at a time, a closed loop at saturation, and arrivals below it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from statistics import median

import msgspec

from loadtests.peers.errors import PeerError
from loadtests.runner.arrivals import wanted_rate
from loadtests.runner.gallery import Gallery
from loadtests.runner.plan import Speed, make_plan
from loadtests.runner.record import Record
from loadtests.runner.report import Report
from loadtests.runner.scenario import Closed, Scenario
from loadtests.runner.session import measure_unloaded, run_plan
from loadtests.runner.target import Status, Target
from loadtests.runner.watch import Watch

SATURATED, ARRIVALS = "saturated", "arrivals"
"""The phases of a scenario of the comparison. Each is a run of its own: what a side still has in flight when one
ends would be in the other's figures."""
WARM_UP_SECONDS = 0.1
"""Shorter than a portrait, so that every caller asks once."""
DRAIN_SECONDS = 600.0

Opener = Callable[[], AbstractAsyncContextManager[Target]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One side under one load in one round; latencies in seconds, rates in images a second."""

    unloaded: tuple[float, ...]
    saturated: tuple[float, ...]
    rate: float
    arrivals: tuple[float, ...]
    """Latencies of the open loop, from the moment that a request was due (coordinated omission)."""
    arrival_seconds: float
    """For how long arrivals were planned, as the runner's `Figures.seconds` of a phase."""
    offered_rate: float
    slo_seconds: float
    """What the scenario calls good, of the side's own unloaded latency."""
    late_seconds: float = 0.0
    """The most that the generator itself was late with a request of the open loop."""

    @property
    def unloaded_latency(self) -> float:
        """The median of the calls that were alone."""
        return median(self.unloaded)

    def goodput(self, slo_seconds: float) -> float:
        """Return images a second of the planned time that came within `slo_seconds`.

        As the runner's goodput, but that answers after the phase's end count: there they stand for those that the
        phase inherits, and a phase that is a run of its own inherits none. Slow sides would lose most by it.
        """
        return sum(latency <= slo_seconds for latency in self.arrivals) / self.arrival_seconds


def part(scenario: Scenario, phase: str, seconds: float | None = None) -> Scenario:
    """Return one phase of a scenario as a scenario, over its own time unless another is given."""
    ((begin, end),) = scenario.turns()[phase]
    return msgspec.structs.replace(
        scenario,
        seconds=end - begin if seconds is None else seconds,
        phases=tuple(one for one in scenario.phases if one.name == phase),
        streams=tuple(one for one in scenario.streams if phase in one.phases),
    )


def sending_seconds(closed_seconds: float, rate: float, concurrency: int) -> float:
    """Return how long the callers of a closed loop begin calls, so that their last answers come after `closed_seconds`.

    At saturation a call takes concurrency / rate (Little's law). Two turns of each caller at least.
    """
    turn = concurrency / rate
    return max(turn, closed_seconds - turn)


async def measure(
    name: str, opener: Opener, scenario: Scenario, gallery: Gallery, seed: int, rate: float | None
) -> Measured:
    """Put a load on a side. `rate` is what it managed in the round before; None for its first, which warms it up.

    The rate counts the ramps at both ends. Raises ``PeerError`` for anything but pictures, and ``TargetError``.
    """

    async def run(load: Scenario, capacity: float) -> Report:
        speed = Speed(capacity=capacity, unloaded=median(unloaded))
        while not (plan := make_plan(load, seed, speed)).requests:
            load = load.lasting(2 * load.seconds)  # so slow a side that by chance nobody comes
        report = await run_plan(
            plan,
            opener(),
            gallery,
            Watch(None, None),
            name=name,
            calibrated=True,
            drain_seconds=DRAIN_SECONDS,
        )
        if any(note.startswith("stopped") for note in report.notes):
            raise KeyboardInterrupt  # the runner keeps what it has; a comparison with half a side is none
        for one in report.records:
            if one.status is not Status.OK:
                raise PeerError(name, one.reason, one.message)
        return report

    unloaded = await measure_unloaded(opener(), scenario, seed)
    full = part(scenario, SATURATED)
    (callers,) = full.streams
    assert isinstance(callers.arrivals, Closed)
    concurrency = callers.arrivals.concurrency
    if rate is None:
        rate = _rate((await run(full.lasting(WARM_UP_SECONDS), 1 / median(unloaded))).records)
    saturated = (await run(full.lasting(sending_seconds(full.seconds, rate, concurrency)), rate)).records
    reached = _rate(saturated)
    below = part(scenario, ARRIVALS)
    arrivals = await run(below, reached)
    return Measured(
        unloaded=tuple(unloaded),
        saturated=tuple(one.latency for one in saturated),
        rate=reached,
        arrivals=tuple(one.latency for one in arrivals.records),
        arrival_seconds=arrivals.seconds,
        offered_rate=sum(wanted_rate(one.arrivals, reached) for one in below.streams),
        slo_seconds=Speed(capacity=reached, unloaded=median(unloaded)).seconds(scenario.slo),
        late_seconds=max(one.sent - one.due for one in arrivals.records),
    )


def _rate(records: tuple[Record, ...]) -> float:
    seconds = max(one.done for one in records) - min(one.due for one in records)
    return sum(one.images for one in records) / seconds
