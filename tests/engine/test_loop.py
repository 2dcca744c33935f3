"""The life of jobs in the loop: joining, leaving, the rows they take, what they leave behind."""

from __future__ import annotations

import gc
import math
import random
from typing import Any

import numpy as np
import pytest
import torch

from engine.backends.base import RowConditioning
from engine.loop.decoding import DecodePlan
from engine.loop.inflight import ImageInFlight
from engine.protocol.framing import ProtocolError
from engine.protocol.messages import (
    Cancel,
    Failed,
    FailureReason,
    Finished,
    ImageReady,
    Queued,
    Shutdown,
    Started,
    Step,
    TickReport,
)
from tests.engine.bench import Bench, job, reference
from tests.engine.fakes import SHAPE, WIDE_TOKENS


def test_a_job_goes_from_queued_to_finished() -> None:
    bench = Bench()
    bench.tell(job(seeds=(7, 8), progress=True), reference())
    bench.finish()
    kinds = [type(frame.message) for frame in bench.sent if not isinstance(frame.message, TickReport)]
    assert kinds == [Queued, Started, Step, Step, Step, Step, ImageReady, ImageReady, Finished]
    images = bench.messages(ImageReady)
    assert [(image.index, image.seed) for image in images] == [(0, 7), (1, 8)]
    assert all(
        tensor.shape == (16, 16, 3) and tensor.dtype == np.uint8 for tensor in bench.tensors(ImageReady)
    )
    assert [step.step for step in bench.messages(Step)] == [1, 2, 3, 4]


def test_a_job_joins_at_the_next_tick_and_leaves_at_its_last() -> None:
    bench = Bench()
    bench.tell(job("a", "first", steps=6, guidance_scale=1.0))
    bench.turn(2)
    bench.tell(job("b", "second", steps=2, guidance_scale=1.0))
    bench.finish()
    texts = [set(texts) for _, texts in bench.backend.ticks()]
    assert texts == [{"first"}] * 2 + [{"first", "second"}] * 2 + [{"first"}] * 2


def test_guidance_of_one_or_less_spends_no_unconditional_row() -> None:
    bench = Bench()
    bench.tell(job("plain", "x", guidance_scale=1.0, steps=1))
    bench.finish()
    bench.tell(job("guided", "x", negative_prompt="ugly", guidance_scale=1.01, steps=1))
    bench.finish()
    assert bench.backend.ticks() == [(1, ("x",)), (2, ("x", "ugly"))]


def test_the_unconditional_row_has_the_unconditional_reference_at_the_same_scale() -> None:
    bench = Bench()
    bench.tell(job(negative_prompt="ugly", ip_adapter_scale=0.7, steps=3), reference(0.25))
    bench.turn()
    rows = [bench.backend.rows[slot] for slot in set(bench.backend.rows) - bench.idle_slots]
    assert [[one.scales for one in row.references] for row in rows] == [[(0.7, 0.7)], [(0.7, 0.7)]]
    assert [[float(one.tokens.mean()) for one in row.references] for row in rows] == [[0.25], [-1.0]]


def test_several_references_have_weights_and_as_many_stand_in_the_unconditional_row() -> None:
    bench = Bench()
    asked = job(adapter="wide", reference_weights=(1.0, 0.5, 0.0), ip_adapter_scale=0.8, steps=3)
    bench.tell(asked, reference(0.1, 0.2, 0.3, tokens=WIDE_TOKENS))
    bench.turn()
    rows = [bench.backend.rows[slot] for slot in set(bench.backend.rows) - bench.idle_slots]
    for row, values in zip(rows, ([0.1, 0.2, 0.3], [-1.0] * 3), strict=True):
        assert [float(one.tokens.mean()) for one in row.references] == pytest.approx(values)
        assert [one.scales for one in row.references] == [(0.8, 0.8), (0.4, 0.4), (0.0, 0.0)]
        assert [one.adapter for one in row.references] == ["wide"] * 3
        assert row.tokens == 3 * WIDE_TOKENS


def test_without_a_reference_neither_row_has_one() -> None:
    bench = Bench()
    bench.tell(job(steps=3))
    bench.turn()
    rows = [bench.backend.rows[slot] for slot in set(bench.backend.rows) - bench.idle_slots]
    assert [row.references for row in rows] == [(), ()]


def test_cancelling_frees_the_rows_within_one_tick() -> None:
    bench = Bench()
    bench.tell(job("a", "gone", steps=50, seeds=(1, 2)))
    bench.tell(job("b", "stays", steps=5))
    bench.turn(2)
    bench.tell(Cancel(job_id="a"))
    bench.turn()
    assert "gone" not in bench.backend.ticks()[-1][1]
    assert bench.slots_held() == 2
    (failed,) = bench.messages(Failed)
    assert (failed.job_id, failed.reason, failed.phase) == ("a", FailureReason.CANCELLED, "denoising")
    bench.finish()
    assert [done.job_id for done in bench.messages(Finished)] == ["b"]
    assert bench.slots_held() == 0


def test_cancelling_an_unknown_or_finished_job_says_nothing() -> None:
    bench = Bench()
    bench.tell(Cancel(job_id="never"))
    bench.tell(job("a", steps=1))
    bench.finish()
    bench.tell(Cancel(job_id="a"))
    bench.turn()
    assert not bench.messages(Failed)


def test_a_finished_image_keeps_its_own_latents_alone() -> None:
    bench = Bench(plan=DecodePlan(batch=4, patience_ticks=9))
    bench.tell(job("short", steps=1))
    bench.tell(job("long", steps=9, seeds=(1, 2, 3)))
    bench.turn()
    ((image, _),) = bench.loop._delivery._decodes._queue
    assert image.state is not None
    assert image.state.untyped_storage().nbytes() == 4 * math.prod(SHAPE)


@pytest.mark.parametrize(
    ("start", "end", "rows"),
    [
        (0.25, 0.75, [1, 2, 2, 1]),
        (0.0, 0.5, [2, 2, 1, 1]),
        (0.3, 1.0, [1, 1, 2, 2]),
        (0.6, 0.7, [1, 1, 1, 1]),
    ],
)
def test_steps_outside_the_guidance_interval_take_one_row(start: float, end: float, rows: list[int]) -> None:
    bench = Bench(buckets=(1, 2, 4))
    bench.tell(job(steps=4, guidance_start=start, guidance_end=end))
    bench.finish()
    assert [report.useful_rows for report in bench.messages(TickReport) if report.bucket] == rows
    (finished,) = bench.messages(Finished)
    assert finished.mean_batch_rows == sum(rows) / 4


def test_a_tick_says_which_image_each_row_is_of(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(buckets=(1, 2, 4, 8))
    predict, told = bench.backend.predict_noise, []

    def recording(*args: Any) -> torch.Tensor:
        told.append(list(args[4]))
        return predict(*args)

    monkeypatch.setattr(bench.backend, "predict_noise", recording)
    bench.tell(job("one", steps=4))
    bench.tell(job("two", steps=4, guidance_end=0.5))
    bench.tell(job("three", steps=4, guidance_scale=1.0))
    bench.finish()
    assert [0, 1, 2, 0, 1] in told and [0, 1, 2, 0] in told


def test_a_pre_empted_image_keeps_its_own_state_alone() -> None:
    bench = Bench(buckets=(1, 2, 4))
    bench.tell(job("batch", steps=9, priority=1))
    bench.tell(job("other", steps=9, priority=1))
    bench.turn(2)
    bench.tell(job("urgent", steps=9))
    bench.turn(2)
    (waits,) = (image for image in bench.loop._jobs._images.values() if image.job.id == "batch")
    assert waits.state is not None
    assert waits.state.untyped_storage().nbytes() == waits.state.nbytes


def test_the_images_of_a_job_share_their_conditioning() -> None:
    bench = Bench(capacity=17)
    bench.tell(job(seeds=tuple(range(8)), steps=3))
    seen: list[RowConditioning] = []
    for _ in range(6):
        bench.turn()
        seen += [bench.backend.rows[slot] for slot in set(bench.backend.rows) - bench.idle_slots]
    assert len(bench.messages(Finished)) == 1
    assert len({id(row) for row in seen}) == 2


def test_shapes_run_in_ticks_of_their_own() -> None:
    bench = Bench()
    bench.tell(job("small", "small", steps=2))
    bench.tell(job("large", "large", steps=2, width=32, height=24))
    bench.finish()
    assert all(len({text for text in texts if text}) == 1 for _, texts in bench.backend.ticks())
    assert sorted(tensor.shape for tensor in bench.tensors(ImageReady)) == [(16, 16, 3), (24, 32, 3)]


def test_pre_emption_gives_up_slots_and_loses_nothing() -> None:
    alone = Bench()
    alone.tell(job("batch", "b", steps=10, seeds=(1, 2, 3)))
    alone.finish()

    bench = Bench(capacity=9)
    bench.tell(job("batch", "b", steps=10, seeds=(1, 2, 3), priority=1))
    bench.turn(3)
    bench.tell(job("urgent", "u", steps=4, seeds=(7, 8, 9, 10)))
    bench.finish()
    assert [done.job_id for done in bench.messages(Finished)] == ["urgent", "batch"]
    images = [
        frame.tensor
        for frame in bench.sent
        if isinstance(frame.message, ImageReady) and frame.message.job_id == "batch"
    ]
    np.testing.assert_array_equal(alone.tensors(ImageReady), images)
    assert bench.slots_held() == 0


def test_shutdown_stops_the_loop() -> None:
    bench = Bench()
    bench.tell(job())
    bench.tell(Shutdown())
    bench.loop.run()
    assert bench.loop.stopped
    assert bench.backend.calls == []


def test_a_server_that_is_gone_stops_the_loop() -> None:
    bench = Bench()
    bench.tell(job())
    bench.inbox.closed = True
    bench.loop.run()
    assert bench.loop.stopped
    assert bench.backend.calls == []


@pytest.mark.parametrize("message", [Step(job_id="a", step=1, steps=2), job("twice")])
def test_what_a_server_never_sends_ends_the_loop(message: object) -> None:
    bench = Bench()
    bench.tell(job("twice"))
    bench.turn()
    bench.tell(message)  # type: ignore[arg-type]
    with pytest.raises(ProtocolError):
        bench.turn()


def images_alive() -> int:
    gc.collect()
    return sum(type(thing) is ImageInFlight for thing in gc.get_objects())


def test_thousands_of_jobs_that_come_and_are_cancelled_leave_nothing_behind() -> None:
    before = images_alive()
    bench = Bench(capacity=9)
    chance = random.Random(7)
    for number in range(2000):
        submit = job(
            str(number),
            f"prompt {number % 5}",
            steps=chance.randint(1, 4),
            seeds=tuple(range(chance.randint(1, 3))),
            priority=chance.randint(0, 1),
            guidance_scale=chance.choice((1.0, 5.0)),
            deterministic=chance.random() < 0.2,
            width=chance.choice((16, 32)),
        )
        bench.tell(submit)
        bench.turn(chance.randint(0, 3))
        bench.tell(Cancel(job_id=str(number)))
    bench.turn(2)
    loop = bench.loop
    assert not loop.busy
    assert len(bench.messages(Failed)) + len(bench.messages(Finished)) == 2000
    assert not loop._jobs._images
    snapshot = loop._jobs._scheduler.snapshot()
    assert (snapshot.rows, snapshot.waiting, snapshot.running, snapshot.preempted) == (0, 0, 0, 0)
    assert bench.slots_held() == 0
    assert len(loop._delivery._decodes) == 0
    assert images_alive() <= before, "engines of other tests may hold some"
