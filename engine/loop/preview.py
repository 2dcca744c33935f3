"""Previews: latents to RGB by a linear map, at latent resolution and next to no cost."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from engine.backends.base import Backend, LatentShape

PICTURES = 4
CELLS = 4
"""Latent cells between the knots of the random fields: about the size of what a portrait's areas span."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentPreview:
    """RGB of a cell = ``weight [3, C]`` @ latents + ``bias [3]``, in 0..255; on the backend's device."""

    weight: torch.Tensor
    bias: torch.Tensor

    def render(self, latents: torch.Tensor) -> torch.Tensor:
        """Return ``[N, h, w, 3]`` uint8 for ``[N, C, h, w]``."""
        rgb = torch.einsum("nchw,dc->nhwd", latents, self.weight) + self.bias
        return rgb.round().clamp(0, 255).to(torch.uint8)


def fit_preview(backend: Backend, shape: LatentShape) -> LatentPreview:
    """Fit the map to this VAE by least squares, on pictures that it decodes from smooth random latents.

    A VAE's first-order colour is close to linear in its latents, which is why hand-fitted factors of this form
    exist for SD 1.5 and SDXL (discuss.huggingface.co/t/decoding-latents-to-rgb-without-upscaling/23204); fitting
    at load gives them for every VAE.
    """
    channels, height, width = shape
    generator = torch.Generator().manual_seed(0)
    knots = (max(2, height // CELLS), max(2, width // CELLS))
    coarse = torch.randn(PICTURES, channels, *knots, generator=generator)
    # Interpolation shrinks the variance; latents have about unit variance by their scaling factor.
    latents = 1.25 * F.interpolate(coarse, (height, width), mode="bicubic")
    pixels = backend.decode_latents(latents.to(backend.device)).cpu().float()
    cells = F.interpolate(pixels.permute(0, 3, 1, 2), (height, width), mode="area")

    inputs = latents.permute(0, 2, 3, 1).reshape(-1, channels).double()
    inputs = torch.cat((inputs, torch.ones(len(inputs), 1, dtype=inputs.dtype)), dim=1)
    target = cells.permute(0, 2, 3, 1).reshape(-1, 3).double()
    solution = torch.linalg.lstsq(inputs, target).solution.float().to(backend.device)
    return LatentPreview(weight=solution[:-1].T.contiguous(), bias=solution[-1])
