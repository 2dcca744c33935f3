"""Configuration, warm-up and previews."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from engine.__main__ import main
from engine.config import ConfigError, EngineConfig
from engine.loop.errors import BackendBrokenError
from engine.loop.preview import fit_preview
from engine.loop.warmup import calibrate
from tests.engine.fakes import BUCKETS, DECODE_SECONDS, FACTS, TICK_SECONDS, FakeBackend, VirtualClock


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("threads", 0),
        ("lanes", 0),
        ("prompt_cache_bytes", -1),
        ("reference_batch", 0),
        ("decode_batch", 65),
        ("decode_patience_ticks", -1),
        ("max_waiting", 0),
        ("aging_seconds", float("inf")),
        ("aging_seconds", float("nan")),
        ("headroom", 0.9),
        ("buckets", ()),
        ("buckets", (0, 1)),
        ("deterministic_bucket", 3),
    ],
)
def test_settings_out_of_range_are_errors_that_name_them(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field) as caught:
        EngineConfig(**{field: value})  # type: ignore[arg-type]
    assert caught.value.field == field


def test_a_lane_has_a_thread_of_its_own() -> None:
    assert EngineConfig(threads=2, lanes=2).lanes == 2
    with pytest.raises(ConfigError, match="lanes") as caught:
        EngineConfig(threads=2, lanes=3)
    assert caught.value.field == "lanes"


@pytest.mark.parametrize(
    ("settings", "threads"),
    [
        ({"threads": 6}, 1),
        ({"backend": "onnxruntime"}, 1),
        ({"backend": "torch", "threads": 6}, 6),
        ({"backend": "torch"}, None),
        ({"device": "cuda", "threads": 3}, 3),
        ({"backend": "tensorrt", "device": "cuda", "threads": 6}, 6),
    ],
)
def test_torch_has_one_thread_beside_another_library(settings: dict[str, Any], threads: int | None) -> None:
    assert EngineConfig(**settings).torch_threads == threads


def test_buckets_must_be_the_backends() -> None:
    assert EngineConfig().buckets_of((4, 1, 2)) == (1, 2, 4)
    assert EngineConfig(buckets=(4, 1)).buckets_of((1, 2, 4)) == (1, 4)
    with pytest.raises(ConfigError, match="buckets"):
        EngineConfig(buckets=(3,)).buckets_of((1, 2, 4))


@pytest.mark.parametrize(
    ("chosen", "buckets", "expected"),
    [(None, (1, 2, 3, 4, 8, 16), 4), (None, (1, 2), 2), (None, (8, 16), 8), (8, (1, 2, 8), 8)],
)
def test_the_deterministic_bucket(chosen: int | None, buckets: tuple[int, ...], expected: int) -> None:
    assert EngineConfig(deterministic_bucket=chosen).deterministic_bucket_of(buckets) == expected


def test_no_deterministic_bucket_is_an_error() -> None:
    with pytest.raises(ConfigError):
        EngineConfig().deterministic_bucket_of((3, 6))
    with pytest.raises(ConfigError):
        EngineConfig(deterministic_bucket=16).deterministic_bucket_of((1, 2, 4))


def test_flags_are_checked_before_anything_is_loaded(capfd: pytest.CaptureFixture[str]) -> None:
    import os

    out = os.dup(1)
    try:
        assert main(["serve", "--socket", "/nonexistent", "--headroom", "0.5"]) == 2
    finally:
        os.dup2(out, 1)
    assert "headroom is 0.5" in capfd.readouterr().err


def test_warm_up_measures_every_bucket_and_leaves_no_slot_taken() -> None:
    clock = VirtualClock()
    backend = FakeBackend(clock=clock)
    calibration = calibrate(backend, BUCKETS, clock, decode_batch=4, patience_ticks=2, reference_batch=4)
    assert calibration.tick_seconds == pytest.approx(TICK_SECONDS)
    assert calibration.decode_seconds == pytest.approx(DECODE_SECONDS)
    assert calibration.decode_plan.batch == 4
    assert calibration.decode_seconds_each == pytest.approx(0.0025)
    assert not backend.rows
    assert ("images", 4) in backend.calls


def test_an_image_encoder_that_gives_nan_does_not_get_ready() -> None:
    clock = VirtualClock()
    backend = FakeBackend(clock=clock)
    encode = backend.encode_images
    backend.encode_images = lambda pixels, adapter=None: encode(pixels) * float("nan")  # type: ignore[method-assign]
    with pytest.raises(BackendBrokenError, match="image encoder"):
        calibrate(backend, BUCKETS, clock, decode_batch=1, patience_ticks=2, reference_batch=4)


def test_warm_up_of_a_model_without_an_adapter_encodes_no_picture() -> None:
    clock = VirtualClock()
    backend = FakeBackend(clock=clock, facts=replace(FACTS, adapters=()))
    calibrate(backend, BUCKETS, clock, decode_batch=1, patience_ticks=2, reference_batch=4)
    assert backend.count("images") == 0


def test_warm_up_does_not_believe_that_fewer_rows_take_longer() -> None:
    clock = VirtualClock()
    backend = FakeBackend(clock=clock)
    predict = backend.predict_noise

    def disturbed(
        slots: object, sample: object, timestep: object, bucket: int, images: object
    ) -> torch.Tensor:
        clock.now += 5.0 if bucket == 1 else 0.0
        return predict(slots, sample, timestep, bucket, images)  # type: ignore[arg-type]

    backend.predict_noise = disturbed  # type: ignore[method-assign]
    times = calibrate(
        backend, BUCKETS, clock, decode_batch=1, patience_ticks=2, reference_batch=4
    ).tick_seconds
    assert times[1] <= times[2] <= times[4] <= times[8]


def test_warm_up_on_a_slow_machine_skips_the_largest_buckets() -> None:
    clock = VirtualClock()
    backend = FakeBackend(clock=clock)
    predict = backend.predict_noise

    def slow(slots: object, sample: object, timestep: object, bucket: int, images: object) -> torch.Tensor:
        clock.now += 20.0 * bucket
        return predict(slots, sample, timestep, bucket, images)  # type: ignore[arg-type]

    backend.predict_noise = slow  # type: ignore[method-assign]
    times = calibrate(
        backend, BUCKETS, clock, decode_batch=1, patience_ticks=2, reference_batch=4
    ).tick_seconds
    assert sorted(times) == [1, 2]


def test_a_model_that_predicts_nan_does_not_get_ready() -> None:
    clock = VirtualClock()
    backend = FakeBackend(clock=clock)
    predict = backend.predict_noise
    backend.predict_noise = lambda *args: predict(*args) * float("nan")  # type: ignore[method-assign]
    with pytest.raises(BackendBrokenError, match="warm-up"):
        calibrate(backend, BUCKETS, clock, decode_batch=1, patience_ticks=2, reference_batch=4)


def test_the_preview_map_is_fitted_to_the_vae() -> None:
    backend = FakeBackend(clock=VirtualClock())
    preview = fit_preview(backend, (4, 8, 8))
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    decoded = backend.decode_latents(latents)[:, ::8, ::8].float()
    shown = preview.render(latents)
    assert shown.shape == (2, 8, 8, 3)
    assert shown.dtype == torch.uint8
    assert (shown.float() - decoded).abs().max() <= 4
