"""DPM-Solver++ (2M), with the model's own spacing of steps or with Karras'."""

from __future__ import annotations

import numpy as np

from .form import H1, X, predicted_x0
from .schedule import Float32Array, NoiseSchedule
from .spacing import interpolated_sigmas, karras_sigmas, spaced_timesteps
from .table import INPUT_PLANES, STATE_PLANES, FloatArray, SamplerTable
from .vp import VpPath


def compile_dpmpp_2m(steps: int, schedule: NoiseSchedule) -> SamplerTable:
    """Compile DPM-Solver++ of order 2, multistep, midpoint.

    The first step is of order 1, and so is the last when it ends at sigma 0 or there are fewer than 15 steps.

    Source: algorithm 2 of arXiv 2211.01095; diffusers `scheduling_dpmsolver_multistep.py`.
    """
    timesteps = np.round(spaced_timesteps(schedule, steps, "linspace", drop_last=True))
    return _compile("dpmpp_2m", timesteps, interpolated_sigmas(schedule, timesteps), schedule)


def compile_dpmpp_2m_karras(steps: int, schedule: NoiseSchedule) -> SamplerTable:
    """Compile `dpmpp_2m` over Karras' sigmas (arXiv 2206.00364, formula 5)."""
    return _compile("dpmpp_2m_karras", *karras_sigmas(schedule, steps), schedule)


def _compile(name: str, timesteps: FloatArray, sigmas: Float32Array, schedule: NoiseSchedule) -> SamplerTable:
    steps = len(timesteps)
    path = VpPath(sigmas)
    matrix = np.zeros((steps, STATE_PLANES, INPUT_PLANES))
    x0 = np.zeros((steps, 2))
    lower_order_final = steps < 15 or schedule.final_sigma == "zero"
    for n in range(steps):
        picture = predicted_x0(schedule.prediction_type, path.alpha[n], path.sigma[n])
        decay, gain = path.exponential_step(n)
        slope = np.zeros(INPUT_PLANES)
        if n > 0 and not (n == steps - 1 and lower_order_final):
            slope = (picture - H1) * (path.lam[n + 1] - path.lam[n]) / (path.lam[n] - path.lam[n - 1])
        matrix[n, 0] = decay * X + gain * (picture + 0.5 * slope)
        matrix[n, 1] = picture
        x0[n] = picture[[0, 4]]
    return SamplerTable(
        sampler=name,
        timesteps=timesteps.astype(np.float32),
        input_scale=np.ones(steps),
        init_noise_sigma=1.0,
        draws_noise=np.zeros(steps, dtype=np.bool_),
        matrix=matrix,
        x0=x0,
    )
