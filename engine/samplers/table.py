"""A sampler for a number of steps, as coefficients."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

STATE_PLANES = 4
"""Planes of a row's state: x (latents), h1 and h2 (the two last x0 predictions), y (the last corrected x)."""

INPUT_PLANES = 6
"""What a step reads: the four planes of the state, e (the model's output) and z (fresh noise)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerLimits:
    """Bound the number of steps, both ends included."""

    min_steps: int
    max_steps: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SamplerTable:
    """Hold every number that integrating one image takes. Arrays are read-only.

    Step n feeds the UNet `input_scale[n] * x` and `timesteps[n]`, and turns its output e into the next state:
    `(x, h1, h2, y) <- matrix[n] @ (x, h1, h2, y, e, z)`. A state begins as
    `(init_noise_sigma * z0, 0, 0, 0)` with z0 from N(0, 1); after the last step x holds the result.

    Attributes:
        sampler: the registry's name.
        timesteps: `[N]` float32, as fed to the UNet; whole numbers except for Euler under `linspace` spacing.
        input_scale: `[N]` float64.
        init_noise_sigma: scale of the first latents.
        draws_noise: `[N]` bool: whether step n takes a draw z. One may be taken and weighed 0, as diffusers
            does in the last step of `euler_ancestral`.
        matrix: `[N, STATE_PLANES, INPUT_PLANES]` float64.
        x0: `[N, 2]` float64: the picture that step n expects is `x0[n, 0] * x + x0[n, 1] * e`, for previews.
        planes: how many of the first planes of the state it uses; no step reads or writes those beyond.
    """

    sampler: str
    timesteps: NDArray[np.float32]
    input_scale: FloatArray
    init_noise_sigma: float
    draws_noise: NDArray[np.bool_]
    matrix: FloatArray
    x0: FloatArray
    planes: int = field(init=False)

    def __post_init__(self) -> None:
        steps = len(self.timesteps)
        assert self.matrix.shape == (steps, STATE_PLANES, INPUT_PLANES), self.matrix.shape
        assert self.input_scale.shape == self.draws_noise.shape == (steps,)
        assert self.x0.shape == (steps, 2)
        assert np.isfinite(self.matrix).all(), self.sampler
        assert np.isfinite(self.x0).all(), self.sampler
        for array in (self.timesteps, self.input_scale, self.draws_noise, self.matrix, self.x0):
            array.setflags(write=False)
        _, written, read = np.nonzero(self.matrix)
        used = np.concatenate((written, read[read < STATE_PLANES]))
        object.__setattr__(self, "planes", int(used.max()) + 1)

    @property
    def steps(self) -> int:
        """Return N, the number of UNet calls."""
        return len(self.timesteps)
