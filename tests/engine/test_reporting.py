"""What the loop tells of its work: timings, previews, progress, places in the queue, ticks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from engine.config import EngineConfig
from engine.protocol.messages import Finished, PreviewReady, Queued, Step, TickReport
from tests.engine.bench import Bench, job
from tests.engine.fakes import TICK_SECONDS


def test_timings_add_up() -> None:
    bench = Bench()
    bench.tell(job(prompt="a long story"))
    bench.finish()
    (done,) = bench.messages(Finished)
    assert done.queue_seconds == 0
    assert done.encode_prompt_seconds == pytest.approx(0.001)
    assert done.denoise_seconds == pytest.approx(4 * TICK_SECONDS[2])
    assert done.decode_seconds == pytest.approx(0.004)
    assert done.mean_batch_rows == 2
    assert (done.prompt_dropped, done.negative_prompt_dropped) == ("tail", "")


def test_previews_come_at_their_interval_and_not_for_the_last_step() -> None:
    bench = Bench()
    bench.tell(job(steps=6, seeds=(1, 2), preview_interval=2))
    bench.finish()
    assert [(p.index, p.step) for p in bench.messages(PreviewReady)] == [(0, 2), (1, 2), (0, 4), (1, 4)]
    assert all(
        tensor.shape == (2, 2, 3) and tensor.dtype == np.uint8 for tensor in bench.tensors(PreviewReady)
    )


def test_progress_only_where_it_is_wanted() -> None:
    bench = Bench()
    bench.tell(job("quiet"))
    bench.tell(job("chatty", progress=True))
    bench.finish()
    steps = [(step.job_id, step.step) for step in bench.messages(Step)]
    assert sorted(steps) == [*(("chatty", step) for step in range(1, 5)), ("quiet", 4)]


def test_a_waiting_job_hears_where_it_stands_when_that_changes_and_not_too_often() -> None:
    bench = Bench(buckets=(1,), config=EngineConfig(deterministic_bucket=1))
    for name in ("first", "second", "third"):
        bench.tell(job(name, steps=100, guidance_scale=1.0))
    bench.tell(job("listens", steps=1, guidance_scale=1.0, progress=True))
    bench.tell(job("deaf", steps=1, guidance_scale=1.0))
    told: list[tuple[float, int]] = []
    for _ in range(303):
        before = len(bench.sent)
        bench.turn()
        news = [frame.message for frame in bench.sent[before:] if isinstance(frame.message, Queued)]
        told += [(bench.clock.now, message.position) for message in news if message.job_id == "listens"]
    positions = [position for _, position in told]
    assert positions == sorted(positions, reverse=True)
    assert {1, 2, 3} <= set(positions)
    assert all(later - earlier > 0.499 for (earlier, _), (later, _) in pairwise(told[1:]))
    assert len(told) <= 7
    assert [message.job_id for message in bench.messages(Queued)].count("deaf") == 1


def test_an_idle_loop_reports_about_once_a_second() -> None:
    bench = Bench()
    bench.turn(5)
    reports = bench.messages(TickReport)
    assert len(reports) == 5
    assert all(report.bucket == 0 and report.waiting == report.running == 0 for report in reports)


def test_tick_reports_say_what_ran() -> None:
    bench = Bench()
    bench.tell(job("a", steps=3))
    bench.tell(job("b", steps=3, guidance_scale=1.0))
    bench.turn()
    (report,) = bench.messages(TickReport)
    assert (report.bucket, report.useful_rows, report.running, report.waiting) == (4, 3, 2, 0)
    assert report.jobs == ("a", "b")
    assert report.seconds == pytest.approx(TICK_SECONDS[4])
    assert report.busy_seconds == pytest.approx(TICK_SECONDS[4] + 0.001)
    assert report.resident_bytes > 0
