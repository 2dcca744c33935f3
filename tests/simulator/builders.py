"""Short ways to say what the tests need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from loadtests.simulator.fleet import Fleet, FleetRun, History
from loadtests.simulator.machine import Machine, TickCosts
from loadtests.simulator.request import Request
from loadtests.simulator.settings import FleetSettings
from loadtests.simulator.traffic import OpenLoop

SHAPE = (4, 8, 8)
ALONE = Machine(
    name="alone",
    sources={},
    ticks=(TickCosts(shape=SHAPE, seconds={1: 1.0}),),
    decode_seconds={1: 0.5},
)
"""One row a second, half a second to decode; everything else is free."""

STAGED = Machine(
    name="staged",
    sources={},
    ticks=(TickCosts(shape=SHAPE, seconds={1: 0.010, 2: 0.012, 4: 0.016, 8: 0.024}),),
    decode_seconds={1: 0.008, 2: 0.010, 4: 0.014},
    step_seconds=0.0005,
    step_seconds_image=0.0001,
    turn_seconds=0.0002,
    prompt_seconds=0.004,
    prompt_seconds_each=0.001,
    encode_seconds=0.020,
    arrive_seconds=0.002,
    answer_seconds=0.005,
    upload_seconds=0.050,
)
"""Every stage costs something."""


def run(
    requests: Iterable[Request], *, machine: Machine = STAGED, history: History | None = None, **settings: Any
) -> FleetRun:
    """Run open-loop requests from second 0 on."""
    given = {"warmup_seconds": 0.0, "seconds": 60.0, **settings}
    return Fleet(FleetSettings(machine=machine, **given), history).run(OpenLoop(requests))


def request(number: int, at: float, **changes: Any) -> Request:
    """Return a request of one row and four steps, without a reference."""
    return replace(Request(id=number, at=at, steps=4, rows=1), **changes)
