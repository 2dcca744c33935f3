"""Seeds, and the noise that they stand for."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import SeedOutOfRangeError

SEED_LIMIT = 2**63
"""Seeds are 0 to SEED_LIMIT - 1. torch's CPU generator reads the low 32 bits only: seeds that differ by a
multiple of 2**32 give the same noise, so draw random seeds from 0 to 2**32 - 1."""


def image_seed(seed: int, index: int) -> int:
    """Return the seed of image `index` of a request: `(seed + index) mod 2**63`.

    Image 0 has the request's own seed, and any image can be made again alone by passing its seed. The same as
    diffusers called with `generator=[torch.Generator().manual_seed(seed + i) for i in range(n)]`. A sweep
    over many requests of n images should step its seeds by n.

    Raises:
        SeedOutOfRangeError: the seed is outside 0..2**63-1, or the index is negative.
    """
    _check_seed(seed)
    if index < 0:
        raise SeedOutOfRangeError("image_index", index, "0 and above")
    return (seed + index) % SEED_LIMIT


class NoiseSource:
    """Draw all the noise of one image, in diffusers' order, for as long as the image is in flight.

    One CPU generator gives the first latents and then one draw for each step whose table says `draws_noise`:
    what `randn_tensor` does in `StableDiffusionPipeline` when given a generator for each image. The numbers
    do not depend on the device that denoises.
    """

    def __init__(self, seed: int, shape: tuple[int, int, int], *, dtype: torch.dtype = torch.float32) -> None:
        """Seed the generator.

        Args:
            seed: the image's own, see `image_seed`.
            shape: (C, h, w) of the latents.
            dtype: what is drawn; diffusers draws in the pipeline's dtype, and other dtypes give other
                numbers.

        Raises:
            SeedOutOfRangeError: the seed is outside 0..2**63-1.
        """
        _check_seed(seed)
        self.seed = seed
        self._shape = shape
        self._dtype = dtype
        self._generator = torch.Generator().manual_seed(seed)

    def initial_latents(self, init_noise_sigma: float) -> Tensor:
        """Return the first draw times `init_noise_sigma`, `[C, h, w]` on the CPU; call it once, first."""
        return self.draw() * init_noise_sigma

    def draw(self) -> Tensor:
        """Return the next draw from N(0, 1), `[C, h, w]` on the CPU."""
        return torch.randn(self._shape, generator=self._generator, dtype=self._dtype)


def _check_seed(seed: int) -> None:
    if not 0 <= seed < SEED_LIMIT:
        raise SeedOutOfRangeError("seed", seed, "0..2**63-1")
