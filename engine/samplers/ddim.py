"""DDIM with eta 0."""

from __future__ import annotations

import numpy as np

from .form import predicted_noise, predicted_x0
from .schedule import NoiseSchedule
from .spacing import spaced_timesteps
from .table import INPUT_PLANES, STATE_PLANES, SamplerTable


def compile_ddim(steps: int, schedule: NoiseSchedule) -> SamplerTable:
    """Compile deterministic DDIM.

    Source: arXiv 2010.02502 formula (12); diffusers `scheduling_ddim.py`. The previous timestep is
    `t - T // steps` whatever the spacing, as there.
    """
    train = schedule.num_train_timesteps
    signal = schedule.alphas_cumprod.astype(np.float64)
    final = 1.0 if schedule.set_alpha_to_one else float(signal[0])
    timesteps = np.round(spaced_timesteps(schedule, steps, "leading")).astype(np.int64)
    matrix = np.zeros((steps, STATE_PLANES, INPUT_PLANES))
    x0 = np.zeros((steps, 2))
    for n, t in enumerate(timesteps):
        before = t - train // steps
        to = float(signal[before]) if before >= 0 else final
        alpha, sigma = np.sqrt(signal[t]), np.sqrt(1 - signal[t])
        picture = predicted_x0(schedule.prediction_type, alpha, sigma)
        noise = predicted_noise(schedule.prediction_type, alpha, sigma)
        matrix[n, 0] = np.sqrt(to) * picture + np.sqrt(1 - to) * noise
        x0[n] = picture[[0, 4]]
    return SamplerTable(
        sampler="ddim",
        timesteps=timesteps.astype(np.float32),
        input_scale=np.ones(steps),
        init_noise_sigma=1.0,
        draws_noise=np.zeros(steps, dtype=np.bool_),
        matrix=matrix,
        x0=x0,
    )
