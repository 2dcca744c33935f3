"""Where in the training schedule the steps of a sampler fall."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .schedule import Float32Array, NoiseSchedule, TimestepSpacing
from .table import FloatArray


def spaced_timesteps(
    schedule: NoiseSchedule, steps: int, default: TimestepSpacing, *, drop_last: bool = False
) -> FloatArray:
    """Return `[steps]` descending timesteps, not yet rounded.

    Args:
        schedule: its `timestep_spacing` wins over `default`.
        steps: number of UNet calls.
        default: what the diffusers class uses when the configuration is silent.
        drop_last: space one step more and drop the last, as DPM++ and UniPC do; `trailing` takes no notice.

    Source: Table 2 of arXiv 2305.08891; `set_timesteps` of the diffusers schedulers. Under `trailing`
        diffusers
    yields one timestep too many, -1, for some numbers of steps (61, 103, 121 ... of 1000: `np.arange`
    overshoots); here the extra one is cut.
    """
    train = schedule.num_train_timesteps
    spacing = schedule.timestep_spacing or default
    count = steps + 1 if drop_last else steps
    if spacing == "linspace":
        return np.linspace(0, train - 1, count)[::-1][:steps]
    if spacing == "leading":
        leading = np.arange(count)[::-1][:steps] * (train // count) + schedule.steps_offset
        return leading.astype(np.float64)
    return np.round(np.arange(train, 0, -train / steps))[:steps] - 1


def interpolated_sigmas(
    schedule: NoiseSchedule, timesteps: NDArray[np.floating | np.integer]
) -> Float32Array:
    """Return `[N + 1]` float32 sigmas at N timesteps, then the final sigma."""
    sigmas = schedule.sigmas
    return _with_final(schedule, np.interp(timesteps, np.arange(len(sigmas)), sigmas))


def karras_sigmas(schedule: NoiseSchedule, steps: int) -> tuple[FloatArray, Float32Array]:
    """Return `[steps]` timesteps and `[steps + 1]` sigmas of Karras' schedule with rho = 7.

    Timesteps are whole; neighbours may be equal at many steps.

    Source: formula (5) of arXiv 2206.00364; `_convert_to_karras` and `_sigma_to_t` in diffusers
    `scheduling_dpmsolver_multistep.py`, which takes timesteps from the sigmas before rounding them to
    float32.
    """
    train = schedule.sigmas
    low, high = float(train[0]) ** (1 / 7), float(train[-1]) ** (1 / 7)
    sigmas = (high + np.linspace(0, 1, steps) * (low - high)) ** 7
    # np.interp clamps at both ends and sigmas rise with the timestep: what _sigma_to_t computes step by step.
    log_train = np.log(train)
    timesteps = np.interp(np.log(np.maximum(sigmas, 1e-10)), log_train, np.arange(len(train)))
    # The scheduler then casts to int64, which truncates where it has not rounded.
    whole = np.trunc(timesteps) if schedule.betas_are_cosine else np.round(timesteps)
    return whole, _with_final(schedule, sigmas)


def _with_final(schedule: NoiseSchedule, sigmas: FloatArray) -> Float32Array:
    last = 0.0 if schedule.final_sigma == "zero" else float(schedule.sigmas[0])
    return np.append(sigmas, last).astype(np.float32)
