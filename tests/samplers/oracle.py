"""diffusers as the oracle: the schedulers that the sampler names stand for, and a model to step them with."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

from engine.samplers import NoiseSchedule, NoiseSource, SamplerTable, advance, initial_state, model_input

SHAPE = (4, 8, 8)

# StableDiffusion 1.5: `timestep_spacing` is absent, so that each scheduler has its own default.
SD15: dict[str, Any] = {
    "_class_name": "PNDMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
# SDXL.
SDXL: dict[str, Any] = {
    **SD15,
    "_class_name": "EulerDiscreteScheduler",
    "interpolation_type": "linear",
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "timestep_spacing": "leading",
    "use_karras_sigmas": False,
}

SIGMAS: dict[str, Any] = {
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
}
UNIPC: dict[str, Any] = {
    **SIGMAS,
    "solver_order": 2,
    "lower_order_final": True,
    "solver_type": "bh2",
    "predict_x0": True,
    "disable_corrector": [],
}
DPMPP: dict[str, Any] = {
    **SIGMAS,
    "algorithm_type": "dpmsolver++",
    "solver_order": 2,
    "lower_order_final": True,
    "solver_type": "midpoint",
    "euler_at_final": False,
    "use_lu_lambdas": False,
    "lambda_min_clipped": -float("inf"),
}
ORACLES: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "ddim": (diffusers.DDIMScheduler, {"clip_sample": False}),
    "euler": (diffusers.EulerDiscreteScheduler, SIGMAS),
    "euler_ancestral": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "dpmpp_2m": (diffusers.DPMSolverMultistepScheduler, DPMPP),
    "dpmpp_2m_karras": (diffusers.DPMSolverMultistepScheduler, {**DPMPP, "use_karras_sigmas": True}),
    "unipc": (diffusers.UniPCMultistepScheduler, UNIPC),
    "lcm": (diffusers.LCMScheduler, {"clip_sample": False}),
}

Model = Callable[[Tensor, Tensor], Tensor]


def linear_model(shape: tuple[int, int, int] = SHAPE) -> Model:
    """Return a fixed map (x `[B, C, h, w]`, t `[B]`) -> prediction, linear in x with weights that follow t.

    It works in float64 and rounds once, so that its own rounding adds nothing to what is compared.
    """
    generator = torch.Generator().manual_seed(20)
    weight, bias = torch.rand(2, *shape, generator=generator, dtype=torch.float64)

    def predict(x: Tensor, t: Tensor) -> Tensor:
        turn = t.double().view(-1, 1, 1, 1) / 1000
        exact: Tensor = (0.3 + 0.6 * weight) * turn.sqrt() * x.double() + 0.3 * bias * torch.cos(5 * turn)
        return exact.to(x.dtype)

    return predict


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """What a scheduler did: x after each step `[N, C, h, w]`, x0 where it tells, its generator's end."""

    latents: Tensor
    x0: Tensor | None
    generator_state: Tensor


def scheduler(name: str, config: dict[str, Any], steps: int) -> Any:
    cls, overrides = ORACLES[name]
    built = cls.from_config(config, **overrides)
    built.set_timesteps(steps)
    return built


def run_oracle(name: str, config: dict[str, Any], steps: int, seed: int) -> Trajectory:
    """Sample as `StableDiffusionPipeline.__call__` does, in float32."""
    built = scheduler(name, config, steps)
    return _run(built, float(built.init_noise_sigma), seed, torch.float32)


def run_oracle64(
    monkeypatch: pytest.MonkeyPatch, name: str, config: dict[str, Any], steps: int, seed: int
) -> Trajectory:
    """Sample with the float32 constants of diffusers but all arithmetic of its steps in float64.

    The square root of MKL, which torch calls, is an ulp off for a fifth of the sigmas: here it is exact.
    """
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "__pow__", _exact_pow)
        built = scheduler(name, config, steps)
        init_noise_sigma = float(built.init_noise_sigma)
    for constant in ("sigmas", "alphas_cumprod", "final_alpha_cumprod"):
        if hasattr(built, constant):
            setattr(built, constant, getattr(built, constant).double())
    module = sys.modules[type(built).__module__]
    with monkeypatch.context() as patch:
        patch.setattr(module, "torch", _Torch64())
        if hasattr(module, "randn_tensor"):
            patch.setattr(module, "randn_tensor", _draw32)
        return _run(built, init_noise_sigma, seed, torch.float64)


def run_table(table: SamplerTable, seed: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Return the states `[STATE_PLANES, C, h, w]` after each step of one image alone."""
    source, model = NoiseSource(seed, SHAPE), linear_model()
    # Scaled after the cast: initial_latents would round the product to float32.
    state = initial_state(source.draw()[None].to(dtype) * table.init_noise_sigma)
    states = []
    for n in range(table.steps):
        x = model_input(state, torch.tensor([table.input_scale[n]]))
        prediction = model(x, torch.tensor([table.timesteps[n]]))
        noise = source.draw()[None].to(dtype) if table.draws_noise[n] else None
        state = advance(state, prediction, noise, torch.from_numpy(table.matrix[n][None].copy()))
        states.append(state[0])
    return states


def schedule_of(config: dict[str, Any]) -> NoiseSchedule:
    return NoiseSchedule.from_config(config)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Return the largest difference over the largest value."""
    return float((actual.double() - expected.double()).abs().max() / expected.double().abs().max())


class _Torch64(ModuleType):
    """torch, in which float32 means float64: schedulers cast samples to `torch.float32`."""

    def __init__(self) -> None:
        super().__init__("torch")

    def __getattr__(self, name: str) -> Any:
        return torch.float64 if name == "float32" else getattr(torch, name)


def _exact_pow(base: Tensor, exponent: Any) -> Tensor:
    if exponent == 0.5 and base.dtype == torch.float32:
        return torch.from_numpy(np.asarray(np.sqrt(base.numpy())))
    return torch.pow(base, exponent)


def _draw32(shape: Any, generator: Any = None, device: Any = None, dtype: Any = None) -> Tensor:
    return torch.randn(shape, generator=generator).to(dtype)


def _run(built: Any, init_noise_sigma: float, seed: int, dtype: torch.dtype) -> Trajectory:
    generator, model = torch.Generator().manual_seed(seed), linear_model()
    latents = diffusers.utils.torch_utils.randn_tensor((1, *SHAPE), generator=generator, dtype=torch.float32)
    latents = latents.to(dtype) * init_noise_sigma
    if built.timesteps[:1].tolist() == built.timesteps[1:2].tolist():
        # Karras' first timesteps may round to the same number, which diffusers would take for the second step
        # and run past the end (IndexError in StableDiffusionPipeline too).
        built.set_begin_index(0)
    draws = "generator" in type(built).step.__code__.co_varnames
    after, estimates = [], []
    for t in built.timesteps:
        prediction = model(built.scale_model_input(latents, t), t[None].float())
        extra = {"generator": generator} if draws else {}
        # LCM turns its timestep into a float32 tensor when it is one; a Python int stays exact.
        at = int(t) if dtype == torch.float64 and isinstance(built, diffusers.LCMScheduler) else t
        output = built.step(prediction, at, latents, **extra)
        latents = output.prev_sample
        after.append(latents[0])
        estimate = getattr(output, "denoised", getattr(output, "pred_original_sample", None))
        if estimate is not None:
            estimates.append(estimate[0])
    return Trajectory(
        latents=torch.stack(after),
        x0=torch.stack(estimates) if estimates else None,
        generator_state=generator.get_state(),
    )
