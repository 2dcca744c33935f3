"""What an engine promises of a job: when it ends, the same pictures in any company, or a refusal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from engine.backends.base import EncodedPrompt
from engine.config import EngineConfig
from engine.loop.decoding import DecodePlan
from engine.protocol.messages import Failed, FailureReason, Finished, ImageReady, Queued, Started
from tests.engine.bench import Bench, job, reference
from tests.engine.fakes import SHAPE, TICK_SECONDS


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
