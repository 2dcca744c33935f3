"""Euler's method on the probability-flow ODE, plain and ancestral."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from .form import E, X, Z
from .schedule import NoiseSchedule
from .spacing import interpolated_sigmas, spaced_timesteps
from .table import INPUT_PLANES, STATE_PLANES, FloatArray, SamplerTable


def compile_euler(steps: int, schedule: NoiseSchedule) -> SamplerTable:
    """Compile Euler without churn.

    Source: algorithm 2 of arXiv 2206.00364; diffusers `scheduling_euler_discrete.py`.
    """
    return _compile("euler", steps, schedule, ancestral=False)


def compile_euler_ancestral(steps: int, schedule: NoiseSchedule) -> SamplerTable:
    """Compile Euler with fresh noise in every step.

    It always ends at sigma 0, and draws noise (weighed 0) in its last step too.

    Source: k-diffusion `sample_euler_ancestral`; diffusers `scheduling_euler_ancestral_discrete.py`.
    """
    return _compile("euler_ancestral", steps, schedule, ancestral=True)


def _compile(name: str, steps: int, schedule: NoiseSchedule, *, ancestral: bool) -> SamplerTable:
    timesteps = spaced_timesteps(schedule, steps, "linspace").astype(np.float32)
    rounded = interpolated_sigmas(schedule, timesteps)
    if ancestral:
        rounded[-1] = 0.0
    sigmas = rounded.astype(np.float64)
    matrix = np.zeros((steps, STATE_PLANES, INPUT_PLANES))
    x0 = np.zeros((steps, 2))
    for n, (sigma, to) in enumerate(pairwise(sigmas)):
        up = to * np.sqrt((sigma**2 - to**2) / sigma**2) if ancestral else 0.0
        down = np.sqrt(to**2 - up**2)
        picture = _predicted_x0(schedule, sigma)
        matrix[n, 0] = X + (X - picture) / sigma * (down - sigma) + up * Z
        x0[n] = picture[[0, 4]]
    return SamplerTable(
        sampler=name,
        timesteps=timesteps,
        input_scale=1 / np.sqrt(sigmas[:-1] ** 2 + 1),
        init_noise_sigma=_init_noise_sigma(schedule, rounded.max()),
        draws_noise=np.full(steps, ancestral),
        matrix=matrix,
        x0=x0,
    )


def _predicted_x0(schedule: NoiseSchedule, sigma: float) -> FloatArray:
    """Return the form of the predicted picture, where `x = x0 + sigma * noise`."""
    if schedule.prediction_type == "epsilon":
        return X - sigma * E
    scaled: FloatArray = X / (sigma**2 + 1) - E * sigma / np.sqrt(sigma**2 + 1)
    return scaled


def _init_noise_sigma(schedule: NoiseSchedule, largest: np.float32) -> float:
    """Return the scale in float32 arithmetic, so that the first latents equal diffusers' to the bit."""
    if schedule.timestep_spacing == "leading":
        return float(np.sqrt(largest * largest + np.float32(1)))
    return float(largest)
