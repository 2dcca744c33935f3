"""Regions: the part of the picture that a reference acts in, as every cross-attention layer sees it.

Each reference has a softmax of its own, and its result is weighted by its mask, pixel by pixel: diffusers'
``ip_adapter_masks`` (models/attention_processor.py, ``IPAdapterAttnProcessor2_0``). A mask is drawn in the picture's
pixels and brought to a layer's by bicubic interpolation, as ``IPAdapterMaskProcessor.downsample`` does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch.nn import functional as F

Box = tuple[float, float, float, float]
"""left, top, right, bottom as parts of the picture's width and height, 0 to 1."""

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)

LevelMasks = Mapping[int, torch.Tensor]
"""By level of the UNet (0 is the latents' own size, each further one half of it), ``[references, pixels]`` f32, or with
rows before that."""


def box_mask(box: Box, height: int, width: int) -> torch.Tensor:
    """Draw a box as ``[height, width]`` f32: 1 for the pixels whose centres lie in it, 0 for the others."""
    left, top, right, bottom = box
    down = (torch.arange(height) + 0.5) / height
    along = (torch.arange(width) + 0.5) / width
    inside = ((down >= top) & (down < bottom))[:, None] & ((along >= left) & (along < right))[None]
    return inside.float()


def level_masks(
    boxes: Sequence[Box], size: tuple[int, int], latent_scale: int, levels: Collection[int]
) -> LevelMasks:
    """Return the masks of a row's references, for a picture of ``size`` (height, width) pixels."""
    drawn = torch.stack([box_mask(box, *size) for box in boxes]).unsqueeze(1)
    height, width = (side // latent_scale for side in size)
    masks: dict[int, torch.Tensor] = {}
    for level in range(max(levels) + 1):
        if level in levels:
            masks[level] = F.interpolate(drawn, size=(height, width), mode="bicubic").flatten(1)
        # As a convolution of stride 2 with a padding of 1 has it.
        height, width = (height + 1) // 2, (width + 1) // 2
    return masks
