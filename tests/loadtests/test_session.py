"""Sessions: what a report tells of a run beside its figures."""

from __future__ import annotations

import contextlib

import pytest

from loadtests.runner.gallery import Gallery
from loadtests.runner.report import Report
from loadtests.runner.session import run_plan
from loadtests.runner.watch import Sample, Watch
from tests.loadtests.building import Queueing, in_virtual_time, plan, stream


class Told(Watch):
    """Has the readings of `engine_restarts` that it is given; None where a page was not read."""

    def __init__(self, *restarts: float | None) -> None:
        super().__init__(None, None)
        self.samples = [
            Sample(at=float(at), values={"tree_memory": 1.0} if value is None else {"engine_restarts": value})
            for at, value in enumerate(restarts)
        ]


@pytest.mark.parametrize(
    ("restarts", "told"),
    [
        ((2.0, 2.0, 2.0), ()),
        ((None, None), ()),
        # A server that was started again itself counts from 0.
        ((2.0, 3.0, 0.0, 2.0), ("engines died and were started again during the run: 3 times",)),
    ],
)
def test_engines_that_were_started_again_are_told(
    restarts: tuple[float | None, ...], told: tuple[str, ...]
) -> None:
    async def work() -> Report:
        made = plan(stream(referenced=0.0), seconds=1.0)
        target = contextlib.nullcontext(Queueing(0.1, servers=9))
        watch = Told(*restarts)
        return await run_plan(made, target, Gallery(0, size=32), watch, name="test", calibrated=False)

    assert in_virtual_time(work).notes == told
