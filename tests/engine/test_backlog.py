"""Bursts of jobs: they hold up neither ticks nor cancels."""

from __future__ import annotations

import pytest

from engine.loop.backlog import ADMIT_SECONDS
from engine.protocol.messages import Cancel, Failed, FailureReason, Finished, Queued, Shutdown
from tests.engine.bench import Bench, job

BURST = 20


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Return a bench with a running job, where admitting a job takes two fifths of what a turn has for it."""
    bench = Bench()
    bench.tell(job("running", steps=50))
    bench.turn()
    submit = bench.loop._jobs._scheduler.submit

    def slow(items: object) -> object:
        bench.clock.now += 0.4 * ADMIT_SECONDS
        return submit(items)  # type: ignore[arg-type]

    monkeypatch.setattr(bench.loop._jobs._scheduler, "submit", slow)
    for number in range(BURST):
        bench.tell(job(str(number), steps=2))
    return bench


def test_a_burst_is_admitted_bit_by_bit_between_ticks(bench: Bench) -> None:
    admitted = []
    for _ in range(4):
        bench.turn()
        admitted.append(len(bench.messages(Queued)) - 1)
    assert admitted == [3, 6, 9, 12]
    assert len(bench.backend.ticks()) == 5
    bench.finish()
    assert [queued.job_id for queued in bench.messages(Queued)][1:] == [str(n) for n in range(BURST)]
    assert len(bench.messages(Finished)) == BURST + 1


def test_a_cancel_overtakes_the_burst(bench: Bench) -> None:
    bench.tell(Cancel(job_id="running"))
    bench.tell(Cancel(job_id=str(BURST - 1)))
    bench.turn()
    failed = {message.job_id: (message.reason, message.phase) for message in bench.messages(Failed)}
    assert failed == {
        "running": (FailureReason.CANCELLED, "denoising"),
        str(BURST - 1): (FailureReason.CANCELLED, "queued"),
    }
    bench.finish()
    assert len(bench.messages(Finished)) == BURST - 1


def test_shutdown_overtakes_the_burst(bench: Bench) -> None:
    bench.tell(Shutdown())
    bench.turn()
    assert bench.loop.stopped
    assert len(bench.messages(Queued)) == 1
