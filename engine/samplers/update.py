"""The one update that advances every row of a tick.

Rows are independent to the bit: each multiplication and each addition is a kernel of its own over `[B, ...]`,
so every element sees the same correctly rounded operations in the same order whatever its neighbours, the
batch size, the vector width or the number of threads. A bmm or an einsum may block differently for another
batch size, and addcmul may fuse in the vector body of a loop and not in its tail.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .table import STATE_PLANES


def initial_state(latents: Tensor) -> Tensor:
    """Return the state `[B, STATE_PLANES, C, h, w]` of images that begin at `latents` `[B, C, h, w]`.

    The latents are already scaled by `init_noise_sigma`, as `NoiseSource.initial_latents` does.
    """
    state = latents.new_zeros(latents.shape[0], STATE_PLANES, *latents.shape[1:])
    state[:, 0] = latents
    return state


def model_input(state: Tensor, input_scale: Tensor) -> Tensor:
    """Return what the UNet is fed, `[B, C, h, w]`: x of each row times its `input_scale` `[B]`."""
    return state[:, 0] * input_scale.to(state.dtype).view(-1, 1, 1, 1)


def advance(
    state: Tensor,
    prediction: Tensor,
    noise: Tensor | None,
    matrix: Tensor,
    planes: int = STATE_PLANES,
) -> Tensor:
    """Return the next state of every row; no argument is written to, and the device is never waited for.

    Args:
        state: `[B, STATE_PLANES, C, h, w]`, float32 in production. Finite everywhere: an unused plane holds
            zeros.
        prediction: `[B, C, h, w]`, the guided output of the UNet; converted to the state's dtype.
        noise: `[B, C, h, w]` fresh noise, zeros in rows that draw none; None when no row draws.
        matrix: `[B, STATE_PLANES, INPUT_PLANES]`, each row's own step of its own `SamplerTable.matrix`.
        planes: `SamplerTable.planes` at its largest: what lies beyond is zero in every row, and stays so.

    Returns:
        The next state, of the same shape and dtype. When the step was an image's last, plane 0 holds its
        latents.
    """
    weights = matrix.to(state.dtype)[:, :planes, :, None, None, None]
    terms = [(weights[:, :, plane], state[:, plane : plane + 1]) for plane in range(planes)]
    terms.append((weights[:, :, STATE_PLANES], prediction.to(state.dtype).unsqueeze(1)))
    if noise is not None:
        terms.append((weights[:, :, STATE_PLANES + 1], noise.to(state.dtype).unsqueeze(1)))
    following = torch.zeros_like(state)
    total = following[:, :planes]
    torch.mul(*terms[0], out=total)
    for weight, plane in terms[1:]:
        total += weight * plane
    return following


def estimate_x0(state: Tensor, prediction: Tensor, x0: Tensor) -> Tensor:
    """Return the latents `[B, C, h, w]` that each row expects in the end, for previews.

    Args:
        state: `[B, STATE_PLANES, C, h, w]` before the step that `prediction` belongs to.
        prediction: `[B, C, h, w]`, the guided output of the UNet.
        x0: `[B, 2]`, each row's own step of `SamplerTable.x0`.
    """
    weights = x0.to(state.dtype)[..., None, None, None]
    return state[:, 0] * weights[:, 0] + prediction.to(state.dtype) * weights[:, 1]
