"""A bad row fails alone; a broken backend ends the process."""

from __future__ import annotations

import numpy as np
import pytest
import structlog
import torch

from engine.backends.base import EncodedPrompt
from engine.loop.decoding import DecodePlan
from engine.loop.errors import BackendBrokenError
from engine.protocol.messages import (
    EncodeReference,
    Failed,
    FailureReason,
    Finished,
    ImageReady,
    ReferenceFailed,
)
from tests.engine.bench import Bench, job, reference
from tests.engine.fakes import TOKENS, WIDTH, BoomError

GOOD = ("good one", "good two", "good three")


def outcome(bench: Bench) -> tuple[set[str], dict[str, FailureReason]]:
    done = {message.job_id for message in bench.messages(Finished)}
    return done, {message.job_id: message.reason for message in bench.messages(Failed)}


@pytest.mark.parametrize(
    ("poison", "reason"),
    [
        ("ticknan", FailureReason.NUMERICAL),
        ("tickboom", FailureReason.INTERNAL),
        ("encnan", FailureReason.NUMERICAL),
        ("encboom", FailureReason.INTERNAL),
        ("placeboom", FailureReason.INTERNAL),
    ],
)
@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
def test_a_poisoned_job_fails_alone(poison: str, reason: FailureReason, guidance_scale: float) -> None:
    bench = Bench()
    for name in GOOD:
        bench.tell(job(name, name, guidance_scale=guidance_scale, steps=5), reference())
    bench.tell(job("bad", poison, guidance_scale=guidance_scale, steps=5, seeds=(1, 2)), reference())
    bench.finish()
    assert outcome(bench) == (set(GOOD), {"bad": reason})
    assert bench.slots_held() == 0


def test_neighbours_of_a_poisoned_row_get_the_same_pictures() -> None:
    alone = Bench()
    alone.tell(job("good", "good", sampler="euler_ancestral", steps=6, seeds=(5, 6)))
    alone.finish()
    for poison in ("ticknan", "tickboom"):
        bench = Bench()
        bench.tell(job("good", "good", sampler="euler_ancestral", steps=6, seeds=(5, 6)))
        bench.turn(2)
        bench.tell(job("bad", poison, steps=6))
        bench.finish()
        for mine, other in zip(bench.tensors(ImageReady), alone.tensors(ImageReady), strict=True):
            assert (mine == other).all()


def test_a_poisoned_job_by_itself_fails_and_the_engine_goes_on() -> None:
    bench = Bench()
    for poison in ("ticknan", "tickboom", "encnan", "encboom", "placeboom"):
        bench.tell(job(poison, poison))
        bench.finish()
    bench.tell(job("good"))
    bench.finish()
    done, failed = outcome(bench)
    assert (done, len(failed)) == ({"good"}, 5)


def test_several_poisoned_jobs_fail_each_for_itself() -> None:
    bench = Bench()
    bench.tell(job("one", "tickboom one"))
    bench.tell(job("two", "ticknan two"))
    bench.tell(job("good", "good"))
    bench.finish()
    assert outcome(bench) == (
        {"good"},
        {"one": FailureReason.INTERNAL, "two": FailureReason.NUMERICAL},
    )


def test_a_tick_of_poisoned_jobs_alone_does_not_end_the_engine() -> None:
    bench = Bench()
    bench.tell(job("one", "tickboom one"))
    bench.tell(job("two", "tickboom two"))
    bench.finish()
    assert len(outcome(bench)[1]) == 2


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_broken_backend_ends_the_engine_and_blames_nobody(jobs: int) -> None:
    bench = Bench()
    for number in range(jobs):
        bench.tell(job(str(number), steps=9))
    bench.turn(2)
    bench.backend.broken = True
    with pytest.raises(BackendBrokenError, match="BoomError"):
        bench.finish()
    assert outcome(bench) == (set(), {})


def test_a_decode_that_is_not_finite_fails_its_job_alone() -> None:
    bench = Bench(plan=DecodePlan(batch=4, patience_ticks=2))
    for name in ("good one", "bad", "good two"):
        bench.tell(job(name, name, steps=2, guidance_scale=1.0))
    bench.turn(2)
    spoilt = next(image for image, _ in bench.loop._delivery._decodes._queue if image.job.id == "bad")
    assert spoilt.state is not None
    spoilt.state = spoilt.state * 0 + 1000
    bench.finish()
    assert outcome(bench) == ({"good one", "good two"}, {"bad": FailureReason.NUMERICAL})


def test_a_vae_that_raises_for_everything_ends_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()

    def broken(latents: object) -> object:
        raise BoomError("vae")

    bench.tell(job(steps=1))
    monkeypatch.setattr(bench.backend, "decode_latents", broken)
    with pytest.raises(BackendBrokenError):
        bench.finish()


def test_ticks_all_of_whose_rows_turn_nan_end_the_engine_only_if_the_probe_fails_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    bench.tell(job("a"))
    bench.turn()
    predict = bench.backend.predict_noise
    monkeypatch.setattr(bench.backend, "predict_noise", lambda *args: predict(*args) * float("nan"))
    with pytest.raises(BackendBrokenError, match="not finite"):
        bench.turn()


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_text_encoder_that_gives_nan_for_everything_ends_the_engine(
    jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench()
    spoilt = EncodedPrompt(embedding=torch.full((4, WIDTH), torch.nan), dropped="")
    monkeypatch.setattr(bench.backend, "encode_prompts", lambda texts: [spoilt] * len(texts))
    for number in range(jobs):
        bench.tell(job(str(number), f"text {number}"))
    with pytest.raises(BackendBrokenError, match="text encoder"):
        bench.turn()
    assert outcome(bench) == (set(), {})


@pytest.mark.parametrize("pictures", [1, 3])
def test_an_image_encoder_that_gives_nan_for_everything_ends_the_engine(
    pictures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench()
    monkeypatch.setattr(
        bench.backend,
        "encode_images",
        lambda pixels, adapter=None: torch.full((len(pixels), TOKENS, WIDTH), torch.nan),
    )
    for number in range(pictures):
        bench.tell(EncodeReference(request_id=str(number)), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(BackendBrokenError, match="image encoder"):
        bench.turn()
    assert not bench.messages(ReferenceFailed)


def test_pictures_that_give_nan_while_others_do_not_fail_and_the_engine_goes_on() -> None:
    bench = Bench()
    for number in range(2):
        bench.tell(EncodeReference(request_id=str(number)), np.full((4, 4, 3), 99, np.uint8))
    bench.turn()
    assert len(bench.messages(ReferenceFailed)) == 2


def test_a_bucket_that_raises_for_sound_images_is_given_up_at_the_second_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    predict = bench.backend.predict_noise

    def without_eight(
        slots: object, sample: object, timestep: object, bucket: int, images: object
    ) -> torch.Tensor:
        if bucket == 8:
            bench.backend.calls.append(("refused", bucket))
            raise BoomError("out of memory")
        return predict(slots, sample, timestep, bucket, images)  # type: ignore[arg-type]

    monkeypatch.setattr(bench.backend, "predict_noise", without_eight)
    with structlog.testing.capture_logs() as logs:
        for name in ("a", "b", "c", "d"):
            bench.tell(job(name, steps=6))
        bench.finish()
    assert outcome(bench) == ({"a", "b", "c", "d"}, {})
    assert bench.backend.count("refused") == 2
    assert max(bucket for bucket, _ in bench.backend.ticks()) == 4
    given_up = [entry for entry in logs if "given up" in entry["event"]]
    assert [(entry["log_level"], entry["bucket"]) for entry in given_up] == [("error", 8)]


def test_one_tick_that_raises_by_chance_gives_no_bucket_up(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    predict, failures = bench.backend.predict_noise, [BoomError("chance")]

    def once(*args: object) -> torch.Tensor:
        if failures:
            raise failures.pop()
        return predict(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(bench.backend, "predict_noise", once)
    for name in ("a", "b", "c", "d"):
        bench.tell(job(name, steps=3))
    bench.finish()
    assert [bucket for bucket, _ in bench.backend.ticks()] == [2, 2, 2, 2, 8, 8]
