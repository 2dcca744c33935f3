"""Every sampler equals its diffusers scheduler."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from engine.samplers import NoiseSource, compile_table, estimate_x0, initial_state, model_input, sampler_names

from .oracle import (
    SD15,
    SDXL,
    SHAPE,
    linear_model,
    relative_error,
    run_oracle,
    run_oracle64,
    run_table,
    schedule_of,
    scheduler,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STEPS = (1, 2, 4, 7, 20, 30, 50)
VARIANTS: dict[str, dict[str, Any]] = {
    "sdxl": SDXL,
    "trailing": {**SD15, "timestep_spacing": "trailing"},
    "linspace": {**SD15, "timestep_spacing": "linspace"},
    "no_offset": {**SDXL, "steps_offset": 0},
    "linear_betas": {**SD15, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    "cosine_betas": {**SD15, "beta_schedule": "squaredcos_cap_v2"},
    "trained_betas": {
        **SD15,
        "trained_betas": np.linspace(1e-3, 2e-2, 400).tolist(),
        "num_train_timesteps": 400,
    },
    "sigma_min": {**SD15, "final_sigmas_type": "sigma_min"},
    "alpha_to_one": {**SD15, "set_alpha_to_one": True},
    "defaults_filled_in": {
        **SDXL,
        "timestep_spacing": "trailing",
        "_use_default_values": ["timestep_spacing"],
    },
    "other_solver": {**SD15, "solver_order": 3, "use_karras_sigmas": True, "clip_sample": True},
    "short_lcm": {**SD15, "original_inference_steps": 30, "timestep_scaling": 3.0},
}


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", sampler_names())
def test_equals_diffusers_in_float64(
    monkeypatch: pytest.MonkeyPatch, name: str, prediction_type: str
) -> None:
    config = {**SD15, "prediction_type": prediction_type}
    for steps in STEPS:
        expected = run_oracle64(monkeypatch, name, config, steps, seed=3)
        states = run_table(compile_table(name, steps, schedule_of(config)), 3, torch.float64)
        actual = torch.stack([state[0] for state in states])
        assert relative_error(actual, expected.latents) < 1e-10, steps


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", sampler_names())
def test_equals_diffusers_in_float32(name: str, prediction_type: str) -> None:
    config = {**SD15, "prediction_type": prediction_type}
    for steps in STEPS:
        expected = run_oracle(name, config, steps, seed=3)
        states = run_table(compile_table(name, steps, schedule_of(config)), 3)
        assert relative_error(states[-1][0], expected.latents[-1]) < 1e-5, steps


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", sampler_names())
def test_equals_diffusers_for_other_schedules(
    monkeypatch: pytest.MonkeyPatch, name: str, variant: str
) -> None:
    config = VARIANTS[variant]
    for steps in (1, 3, 16, 25):
        expected = run_oracle64(monkeypatch, name, config, steps, seed=9)
        states = run_table(compile_table(name, steps, schedule_of(config)), 9, torch.float64)
        actual = torch.stack([state[0] for state in states])
        assert relative_error(actual, expected.latents) < 1e-10, steps


@pytest.mark.parametrize("variant", ["sdxl", "trailing", "linspace", "cosine_betas"])
@pytest.mark.parametrize("name", sampler_names())
def test_feeds_the_unet_what_diffusers_feeds(name: str, variant: str) -> None:
    config = VARIANTS[variant]
    for steps in STEPS:
        table, oracle = compile_table(name, steps, schedule_of(config)), scheduler(name, config, steps)
        assert table.timesteps.tolist() == oracle.timesteps.float().tolist()
        assert table.init_noise_sigma == pytest.approx(float(oracle.init_noise_sigma), rel=3e-7)
        ones = torch.ones(1, 1, 1, 1)
        scales = [float(oracle.scale_model_input(ones, oracle.timesteps[0]))]
        assert table.input_scale[:1] == pytest.approx(scales, rel=1e-6)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", ["ddim", "euler", "euler_ancestral", "lcm"])
def test_previews_equal_the_prediction_of_diffusers(
    monkeypatch: pytest.MonkeyPatch, name: str, prediction_type: str
) -> None:
    config = {**SD15, "prediction_type": prediction_type}
    expected = run_oracle64(monkeypatch, name, config, 6, seed=5).x0
    assert expected is not None
    table = compile_table(name, 6, schedule_of(config))
    states = [initial_state(NoiseSource(5, SHAPE).draw()[None].double() * table.init_noise_sigma)]
    states += [state[None] for state in run_table(table, 5, torch.float64)]
    for n in range(6):
        x = model_input(states[n], torch.tensor([table.input_scale[n]]))
        prediction = linear_model()(x, torch.tensor([table.timesteps[n]]))
        estimate = estimate_x0(states[n], prediction, torch.from_numpy(table.x0[n][None].copy()))
        assert relative_error(estimate[0], expected[n]) < 1e-10


@pytest.mark.parametrize("name", ["dpmpp_2m", "dpmpp_2m_karras", "unipc"])
def test_the_preview_of_the_last_multistep_step_is_the_result(name: str) -> None:
    table = compile_table(name, 5, schedule_of(SD15))
    states = run_table(table, 5, torch.float64)
    before = states[-2][None]
    prediction = linear_model()(before[:, 0], torch.tensor([table.timesteps[-1]]))
    estimate = estimate_x0(before, prediction, torch.from_numpy(table.x0[-1][None].copy()))
    assert relative_error(estimate[0], states[-1][0]) < 1e-10
