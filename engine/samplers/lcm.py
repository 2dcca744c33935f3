"""The multistep consistency sampler of latent consistency models."""

from __future__ import annotations

import numpy as np

from .form import X, Z, predicted_x0
from .schedule import NoiseSchedule
from .table import INPUT_PLANES, STATE_PLANES, SamplerTable

_SIGMA_DATA = 0.5


def compile_lcm(steps: int, schedule: NoiseSchedule) -> SamplerTable:
    """Compile LCM sampling: predict the picture, add fresh noise, repeat; the last step adds none.

    `x0` is the prediction after the boundary condition, diffusers' `denoised`. Spacing and offset of the
    configuration have no say: steps come from the schedule that the model was distilled on.

    Source: algorithm 3 of arXiv 2310.04378; diffusers `scheduling_lcm.py`.
    """
    signal = schedule.alphas_cumprod.astype(np.float64)
    original = schedule.original_inference_steps
    distilled = np.arange(1, original + 1) * (schedule.num_train_timesteps // original) - 1
    picks = np.floor(np.linspace(0, original, num=steps, endpoint=False)).astype(np.int64)
    timesteps = distilled[::-1][picks]
    matrix = np.zeros((steps, STATE_PLANES, INPUT_PLANES))
    x0 = np.zeros((steps, 2))
    for n, t in enumerate(timesteps):
        alpha, sigma = np.sqrt(signal[t]), np.sqrt(1 - signal[t])
        scaled = float(t) * schedule.timestep_scaling
        skip = _SIGMA_DATA**2 / (scaled**2 + _SIGMA_DATA**2)
        keep = scaled / np.sqrt(scaled**2 + _SIGMA_DATA**2)
        denoised = keep * predicted_x0(schedule.prediction_type, alpha, sigma) + skip * X
        matrix[n, 0] = denoised
        if n < steps - 1:
            to = signal[timesteps[n + 1]]
            matrix[n, 0] = np.sqrt(to) * denoised + np.sqrt(1 - to) * Z
        x0[n] = denoised[[0, 4]]
    return SamplerTable(
        sampler="lcm",
        timesteps=timesteps.astype(np.float32),
        input_scale=np.ones(steps),
        init_noise_sigma=1.0,
        draws_noise=np.arange(steps) < steps - 1,
        matrix=matrix,
        x0=x0,
    )
