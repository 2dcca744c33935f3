"""The life of jobs in the loop: joining, leaving, messages, timings."""

from __future__ import annotations

import gc
import math
import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from engine.backends.base import EncodedPrompt, RowConditioning
from engine.config import EngineConfig
from engine.loop.decoding import DecodePlan
from engine.loop.inflight import ImageInFlight
from engine.protocol.framing import ProtocolError
from engine.protocol.messages import (
    Cancel,
    Failed,
    FailureReason,
    Finished,
    ImageReady,
    PreviewReady,
    Queued,
    Shutdown,
    Started,
    Step,
    TickReport,
)
from tests.engine.fakes import SHAPE, TICK_SECONDS, WIDE_TOKENS, Bench, job, reference


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


def test_a_job_past_its_deadline_leaves_before_the_next_tick() -> None:
    bench = Bench()
    bench.tell(job("late", "late", steps=4, deadline=0.1))
    bench.turn()
    bench.clock.now += 1
    bench.turn()
    (failed,) = bench.messages(Failed)
    assert (failed.reason, failed.phase) == (FailureReason.DEADLINE, "denoising")
    assert len(bench.backend.ticks()) == 1
    assert bench.slots_held() == 0


def test_a_finished_image_past_its_deadline_is_not_decoded() -> None:
    bench = Bench(config=EngineConfig(headroom=1.0))
    bench.tell(job("other", steps=20, guidance_scale=1.0))
    bench.tell(job("late", steps=1, guidance_scale=1.0, deadline=0.1))
    bench.turn()
    bench.clock.now += 1
    bench.finish()
    (failed,) = bench.messages(Failed)
    assert (failed.job_id, failed.reason, failed.phase) == ("late", FailureReason.DEADLINE, "decoding")
    assert [done.job_id for done in bench.messages(Finished)] == ["other"]


def test_the_wait_and_the_deadline_count_from_the_arrival() -> None:
    bench = Bench()
    bench.tell(job("patient"))
    bench.tell(job("hasty", deadline=2.0))
    bench.clock.now += 3  # the loop is busy with a long tick
    bench.turn()
    (refused,) = bench.messages(Failed)
    assert (refused.job_id, refused.reason) == ("hasty", FailureReason.INFEASIBLE)
    assert [started.queue_seconds for started in bench.messages(Started)] == [pytest.approx(3)]
    bench.finish()
    assert bench.messages(Finished)[0].queue_seconds == pytest.approx(3)


def test_what_cannot_meet_its_deadline_is_refused_at_once() -> None:
    bench = Bench()
    bench.tell(job("crowd", seeds=tuple(range(8)), steps=50))
    bench.tell(job("hasty", steps=4, deadline=0.1))
    bench.turn()
    (failed,) = bench.messages(Failed)
    assert (failed.job_id, failed.reason, failed.phase) == ("hasty", FailureReason.INFEASIBLE, "queued")
    assert failed.retry_after is not None
    assert failed.retry_after > 0
    assert failed.least_seconds is not None
    assert 4 * TICK_SECONDS[2] < failed.least_seconds < 0.1


def test_what_an_idle_engine_could_not_do_in_time_is_not_to_be_tried_again() -> None:
    bench = Bench()
    bench.tell(job("hopeless", steps=50, deadline=0.05))
    bench.turn()
    (failed,) = bench.messages(Failed)
    assert (failed.reason, failed.retry_after) == (FailureReason.INFEASIBLE, None)
    assert bench.backend.calls == []


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
    bench.tell(job("other", steps=9))
    bench.turn(2)
    bench.tell(job("urgent", steps=9))
    bench.turn()
    (waits,) = (image for image in bench.loop._jobs._images.values() if image.job.id == "batch")
    assert waits.state is not None
    assert waits.state.untyped_storage().nbytes() == waits.state.nbytes


def test_a_full_queue_refuses_and_says_when_to_come_again() -> None:
    bench = Bench(config=EngineConfig(max_waiting=2))
    for name in "abc":
        bench.tell(job(name))
    bench.turn()
    (failed,) = bench.messages(Failed)
    assert (failed.job_id, failed.reason) == ("c", FailureReason.QUEUE_FULL)
    assert failed.retry_after is not None
    assert failed.retry_after > 0


@pytest.mark.parametrize(
    ("changes", "tokens"),
    [
        ({"sampler": "nope"}, None),
        ({"steps": 0}, None),
        ({"steps": 201}, None),
        ({"width": 12}, None),
        ({"height": 72}, None),
        ({"seeds": ()}, None),
        ({"seeds": tuple(range(9))}, None),
        ({"seeds": (-1,)}, None),
        ({"guidance_scale": float("nan")}, None),
        ({"guidance_rescale": 1.5}, None),
        ({"guidance_start": float("nan")}, None),
        ({"guidance_end": float("inf")}, None),
        ({"ip_adapter_scale": float("inf")}, None),
        ({"priority": 7}, None),
        ({}, np.zeros((2, 8), np.float32)),
        ({}, np.zeros((1, 3, 8), np.float32)),
        ({}, np.zeros((1, 2, 8), np.uint8)),
        ({}, np.zeros((0, 2, 8), np.float32)),
        ({}, np.zeros((5, 2, 8), np.float32)),
        ({"adapter": "wide"}, np.zeros((1, 2, 8), np.float32)),
        ({"adapter": "nope"}, np.zeros((1, 2, 8), np.float32)),
        ({"reference_layers": "style"}, np.zeros((1, 2, 8), np.float32)),
        ({"reference_layers": "nope"}, np.zeros((1, 2, 8), np.float32)),
        ({"reference_weights": (1.0, 1.0)}, np.zeros((1, 2, 8), np.float32)),
        ({"reference_weights": (float("nan"),)}, np.zeros((1, 2, 8), np.float32)),
        ({"reference_weights": (1.0,)}, None),
        ({"reference_regions": (None, None)}, np.zeros((1, 2, 8), np.float32)),
        ({"reference_regions": ((0.0, 0.0, 0.5, 1.0),)}, np.zeros((1, 2, 8), np.float32)),
        ({"reference_regions": ((0.5, 0.0, 0.5, 1.0),)}, np.zeros((1, 2, 8), np.float32)),
    ],
)
def test_what_the_engine_cannot_run_is_refused_and_costs_no_tick(
    changes: dict[str, object], tokens: np.ndarray | None
) -> None:
    bench = Bench()
    bench.tell(job(**changes), tokens)
    bench.turn()
    (failed,) = bench.messages(Failed)
    assert failed.reason is FailureReason.INVALID
    assert bench.backend.calls == []


def test_reference_tokens_that_are_not_finite_fail_their_job() -> None:
    bench = Bench()
    bench.tell(job(), reference(float("nan")))
    bench.turn()
    assert [failed.reason for failed in bench.messages(Failed)] == [FailureReason.NUMERICAL]


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


def test_the_images_of_a_job_share_their_conditioning() -> None:
    bench = Bench(capacity=17)
    bench.tell(job(seeds=tuple(range(8)), steps=3))
    seen: list[RowConditioning] = []
    for _ in range(6):
        bench.turn()
        seen += [bench.backend.rows[slot] for slot in set(bench.backend.rows) - bench.idle_slots]
    assert len(bench.messages(Finished)) == 1
    assert len({id(row) for row in seen}) == 2


def test_replaying_a_job_gives_the_same_pictures_whatever_shares_its_ticks() -> None:
    asked = job("again", "a", sampler="euler_ancestral", steps=7, seeds=(3, 4))
    alone = Bench()
    alone.tell(asked, reference())
    alone.finish()
    crowded = Bench()
    crowded.tell(job("other", "b", sampler="unipc", steps=9, seeds=(5,)))
    crowded.turn(2)
    crowded.tell(asked, reference())
    crowded.tell(job("third", "c", sampler="lcm", steps=3, guidance_scale=1.0))
    crowded.finish()
    again = [
        frame.tensor
        for frame in crowded.sent
        if isinstance(frame.message, ImageReady) and frame.message.job_id == "again"
    ]
    np.testing.assert_array_equal(alone.tensors(ImageReady), again)


def test_images_of_a_job_differ_by_seed_and_equal_those_asked_for_alone() -> None:
    bench = Bench()
    bench.tell(job("both", seeds=(3, 4)))
    bench.finish()
    bench.tell(job("second", seeds=(4,)))
    bench.finish()
    first, second, alone = bench.tensors(ImageReady)
    assert (first != second).any()
    np.testing.assert_array_equal(second, alone)


def test_shapes_run_in_ticks_of_their_own() -> None:
    bench = Bench()
    bench.tell(job("small", "small", steps=2))
    bench.tell(job("large", "large", steps=2, width=32, height=24))
    bench.finish()
    assert all(len({text for text in texts if text}) == 1 for _, texts in bench.backend.ticks())
    assert sorted(tensor.shape for tensor in bench.tensors(ImageReady)) == [(16, 16, 3), (24, 32, 3)]


def test_deterministic_jobs_tick_in_their_bucket_and_share_no_encode_or_decode() -> None:
    bench = Bench(config=EngineConfig(deterministic_bucket=4))
    bench.tell(job("d", "d", negative_prompt="n", steps=3, deterministic=True, seeds=(1, 2)))
    bench.tell(job("e", "e", steps=3, seeds=(1, 2)))
    bench.finish()
    buckets = {bucket for bucket, texts in bench.backend.ticks() if "d" in texts}
    assert buckets == {4}
    encoded = [what for call, what in bench.backend.calls if call == "prompts"]
    assert ("d",) in encoded
    assert ("n",) in encoded
    assert bench.messages(Finished)[-1].mean_batch_rows <= 4


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


def expected_over_measured(bench: Bench, bucket: int) -> float:
    costs = bench.loop._jobs._scheduler._costs
    return costs.seconds(SHAPE, bucket) / costs.warmup_seconds(SHAPE, bucket)


ONE_BY_ONE = DecodePlan(batch=1, patience_ticks=0)
TOGETHER = DecodePlan(batch=4, patience_ticks=2)


@pytest.mark.parametrize("encode_seconds", [0.001, 0.03])
@pytest.mark.parametrize("plan", [ONE_BY_ONE, TOGETHER], ids=["one by one", "together"])
def test_a_full_engine_keeps_what_it_promises(plan: DecodePlan, encode_seconds: float) -> None:
    bench = Bench(plan=plan)
    encode = bench.backend.encode_prompts

    def encode_slowly(texts: Sequence[str]) -> list[EncodedPrompt]:
        bench.clock.now += encode_seconds
        return encode(texts)

    bench.backend.encode_prompts = encode_slowly  # type: ignore[method-assign]
    for wave in range(2):  # in the first one it learns what comes between its ticks
        for number in range(60):
            bench.tell(job(f"{wave}-{number}", prompt=f"man {wave} {number}", steps=4, guidance_scale=1.0))
        admitted = bench.clock.now
        bench.turn()
        promised = bench.messages(Queued)[-1]
        bench.finish()
        took = bench.clock.now - admitted
    assert promised.job_id == "1-59"
    assert promised.finishes_in == pytest.approx(took, rel=0.1)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("plan", [ONE_BY_ONE, TOGETHER], ids=["one by one", "together"])
def test_the_time_without_work_is_no_part_of_a_tick(plan: DecodePlan, steps: int) -> None:
    bench = Bench(plan=plan)
    for number in range(30):
        bench.tell(job(str(number), steps=steps, guidance_scale=1.0))
        bench.finish()
        bench.clock.now += 10.0
    assert expected_over_measured(bench, 1) == pytest.approx(1.0, abs=0.01)


def test_the_time_of_a_tick_that_failed_is_no_part_of_the_next() -> None:
    bench = Bench()
    for number in range(20):
        bench.tell(job(str(number), "boom" if number % 2 else "sound", steps=2, guidance_scale=1.0))
        bench.finish()
    assert expected_over_measured(bench, 2) == pytest.approx(1.0, abs=0.05)
