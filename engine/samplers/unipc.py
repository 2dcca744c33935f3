"""UniPC of order 2 with B2(h), predicting x0."""

from __future__ import annotations

import numpy as np

from .form import H1, H2, X, Y, predicted_x0
from .schedule import NoiseSchedule
from .spacing import interpolated_sigmas, spaced_timesteps
from .table import INPUT_PLANES, STATE_PLANES, FloatArray, SamplerTable
from .vp import VpPath


def compile_unipc(steps: int, schedule: NoiseSchedule) -> SamplerTable:
    """Compile UniPC: each step first corrects x with the new prediction, then predicts the next x.

    The order is 1 in the first and in the last step, else 2; a correction has the order of the prediction
    that it corrects.

    Source: arXiv 2302.04867, section 3; diffusers `scheduling_unipc_multistep.py`.
    """
    timesteps = np.round(spaced_timesteps(schedule, steps, "linspace", drop_last=True))
    path = VpPath(interpolated_sigmas(schedule, timesteps))
    matrix = np.zeros((steps, STATE_PLANES, INPUT_PLANES))
    x0 = np.zeros((steps, 2))
    order = 0
    for n in range(steps):
        picture = predicted_x0(schedule.prediction_type, path.alpha[n], path.sigma[n])
        corrected = _correct(path, n, picture, order) if n > 0 else X
        order = min(2, n + 1, steps - n)
        matrix[n] = [_predict(path, n, corrected, picture, order), picture, H1, corrected]
        x0[n] = picture[[0, 4]]
    return SamplerTable(
        sampler="unipc",
        timesteps=timesteps.astype(np.float32),
        input_scale=np.ones(steps),
        init_noise_sigma=1.0,
        draws_noise=np.zeros(steps, dtype=np.bool_),
        matrix=matrix,
        x0=x0,
    )


def _predict(path: VpPath, n: int, x: FloatArray, picture: FloatArray, order: int) -> FloatArray:
    """Return UniP's x at level n + 1 (formula 7): the coefficient of order 2 is fixed at 1/2, as in
    diffusers.
    """
    decay, gain = path.exponential_step(n)
    slope = np.zeros(INPUT_PLANES)
    if order == 2:
        slope = (H1 - picture) / _ratio(path, n)
    return decay * x + gain * (picture + 0.5 * slope)


def _correct(path: VpPath, n: int, picture: FloatArray, order: int) -> FloatArray:
    """Return UniC's x at level n, from the state at level n - 1 and the prediction at n (formula 3)."""
    decay, gain = path.exponential_step(n - 1)
    ahead = picture - H1
    if order == 1:
        return decay * Y + gain * (H1 + 0.5 * ahead)
    ratio = _ratio(path, n - 1)
    # Solves sum_k rho_k r_k**(i - 1) = b_i for i = 1, 2 with r = (ratio, 1); b_i = i! h phi_{i+1}(h) / B(h).
    hh = -(path.lam[n] - path.lam[n - 1])
    phi2 = np.expm1(hh) / hh - 1
    phi3 = phi2 / hh - 0.5
    b = np.array([phi2, 2 * phi3]) / np.expm1(hh)
    behind_weight, ahead_weight = (float(rho) for rho in np.linalg.solve([[1.0, 1.0], [ratio, 1.0]], b))
    slope: FloatArray = behind_weight * (H2 - H1) / ratio + ahead_weight * ahead
    return decay * Y + gain * (H1 + slope)


def _ratio(path: VpPath, n: int) -> float:
    """Return where level n - 1 lies, in units of the step from n to n + 1; negative."""
    return float((path.lam[n - 1] - path.lam[n]) / (path.lam[n + 1] - path.lam[n]))
