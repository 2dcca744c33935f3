"""Names, limits, immutability and errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.samplers import (
    MAX_STEPS,
    NoiseSchedule,
    SamplerError,
    SamplerLimits,
    StepsOutOfRangeError,
    UnknownSamplerError,
    UnsupportedScheduleError,
    compile_table,
    sampler_limits,
    sampler_names,
)

from .oracle import ORACLES, SD15, SDXL, schedule_of, scheduler

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_names() -> None:
    assert sampler_names() == (
        "ddim", "euler", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_karras", "unipc", "lcm",
    )  # fmt: skip
    assert set(sampler_names()) == set(ORACLES)


def test_limits() -> None:
    assert sampler_limits("euler", schedule_of(SD15)) == SamplerLimits(min_steps=1, max_steps=MAX_STEPS)
    assert sampler_limits("lcm", schedule_of(SD15)) == SamplerLimits(min_steps=1, max_steps=50)
    few = schedule_of({**SD15, "num_train_timesteps": 100, "original_inference_steps": 20})
    assert sampler_limits("ddim", few).max_steps == 49
    assert sampler_limits("lcm", few).max_steps == 20


@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("name", sampler_names())
def test_every_number_of_steps_within_the_limits_compiles(name: str, spacing: str) -> None:
    schedule = schedule_of({**SD15, "num_train_timesteps": 100, "timestep_spacing": spacing})
    limits = sampler_limits(name, schedule)
    for steps in range(limits.min_steps, limits.max_steps + 1):
        table = compile_table(name, steps, schedule)
        assert table.steps == steps
        assert (table.timesteps >= 0).all()
        assert (table.timesteps < 100).all()
    longest = sampler_limits(name, schedule_of(SD15)).max_steps
    assert compile_table(name, longest, schedule_of({**SDXL, "timestep_spacing": spacing})).steps == longest


def test_trailing_cuts_the_timestep_too_many_of_diffusers() -> None:
    config = {**SD15, "timestep_spacing": "trailing"}
    oracle = scheduler("ddim", config, 61)
    assert oracle.timesteps[-1] == -1
    assert compile_table("ddim", 61, schedule_of(config)).timesteps.tolist() == oracle.timesteps[:-1].tolist()


@pytest.mark.parametrize(
    ("name", "steps"), [("ddim", 0), ("ddim", -3), ("lcm", 51), ("unipc", MAX_STEPS + 1)]
)
def test_refuses_steps_out_of_range(name: str, steps: int) -> None:
    with pytest.raises(StepsOutOfRangeError, match=str(steps)) as raised:
        compile_table(name, steps, schedule_of(SD15))
    assert raised.value.field == "steps"
    assert raised.value.limit == ("1..50" if name == "lcm" else "1..200")


def test_refuses_unknown_names() -> None:
    for act in (
        lambda: compile_table("heun", 4, schedule_of(SD15)),
        lambda: sampler_limits("", schedule_of(SD15)),
    ):
        with pytest.raises(UnknownSamplerError) as raised:
            act()
        assert raised.value.field == "sampler"
        assert raised.value.limit.startswith("ddim, euler,")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rescale_betas_zero_snr", True),
        ("thresholding", True),
        ("prediction_type", "sample"),
        ("beta_schedule", "sigmoid"),
        ("timestep_spacing", "quadratic"),
        ("interpolation_type", "log_linear"),
        ("timestep_type", "continuous"),
        ("use_flow_sigmas", True),
        ("sigma_max", 80.0),
        ("final_sigmas_type", "one"),
        ("beta_start", None),
        ("beta_end", 2),
        ("steps_offset", -1),
        ("num_train_timesteps", 1),
        ("num_train_timesteps", "many"),
        ("trained_betas", [0.1, 3.0]),
        ("original_inference_steps", 2000),
    ],
)
def test_refuses_schedules_that_tables_do_not_cover(key: str, value: Any) -> None:
    with pytest.raises(UnsupportedScheduleError, match=key) as raised:
        NoiseSchedule.from_config({**SD15, key: value})
    assert raised.value.field == key
    assert raised.value.limit
    assert isinstance(raised.value, SamplerError)
    assert isinstance(raised.value, ValueError)


def test_refuses_a_schedule_of_another_kind() -> None:
    with pytest.raises(UnsupportedScheduleError) as raised:
        NoiseSchedule.from_config({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0})
    assert raised.value.field == "beta_schedule"


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_signal_powers_equal_diffusers(kind: str) -> None:
    config = {**SD15, "beta_schedule": kind}
    actual = NoiseSchedule.from_config(config)
    expected = ORACLES["ddim"][0].from_config(config).alphas_cumprod.numpy()
    np.testing.assert_allclose(actual.alphas_cumprod, expected, rtol=2e-7)
    np.testing.assert_allclose(1 - actual.alphas_cumprod, 1 - expected, rtol=1e-6)


def test_tables_are_read_only() -> None:
    table = compile_table("unipc", 5, schedule_of(SD15))
    for array in (table.matrix, table.timesteps, table.input_scale, table.x0, table.draws_noise):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        schedule_of(SD15).alphas_cumprod[0] = 0
