"""Classifier-free guidance for rows that each have their own scale."""

from __future__ import annotations

import torch
from torch import Tensor


def guide(
    predictions: Tensor,
    scale: Tensor,
    rescale: Tensor | None = None,
    guided: Tensor | None = None,
) -> Tensor:
    """Return one guided prediction for each image from the UNet's rows of a tick.

    An image without guidance has no unconditional row, and its prediction comes back unchanged, to the bit, whatever
    its scale and rescale.

    Args:
        predictions: `[B + G, C, h, w]`, all rows of the UNet call: the prompt's of each image, then the negative
            prompts' of the G that are guided. float16 and bfloat16 are guided in float32.
        scale: `[B]` guidance_scale.
        rescale: `[B]` guidance_rescale in 0..1, or None when it is 0 for all, which saves the statistics.
        guided: `[G]` int64, which images are guided, in the order of their rows; None for all or none of them.

    Returns:
        `[B, C, h, w]` in float32 (float64 for float64 predictions). Rows are independent of one another to
        the bit.

    Source: arXiv 2207.12598; diffusers `StableDiffusionPipeline.__call__`.
    """
    rows = predictions if predictions.dtype == torch.float64 else predictions.float()
    cond, uncond = rows[: len(scale)], rows[len(scale) :]
    if not len(uncond):
        return cond
    if guided is None:
        return _guided(cond, uncond, scale, rescale)
    own = None if rescale is None else rescale[guided]
    return cond.index_copy(0, guided, _guided(cond[guided], uncond, scale[guided], own))


def _guided(cond: Tensor, uncond: Tensor, scale: Tensor, rescale: Tensor | None) -> Tensor:
    plain = combine(cond, uncond, scale)
    if rescale is None:
        return plain
    return torch.where(_column(rescale > 0, cond), rescaled(plain, cond, rescale), plain)


def combine(cond: Tensor, uncond: Tensor, scale: Tensor) -> Tensor:
    """Return `uncond + scale * (cond - uncond)` for `[B, ...]` predictions and `[B]` scales."""
    return uncond + _column(scale.to(cond.dtype), cond) * (cond - uncond)


def rescaled(guided: Tensor, cond: Tensor, rescale: Tensor) -> Tensor:
    """Return `guided` `[B, ...]` drawn towards the standard deviation of `cond`, by `rescale` `[B]` in 0..1.

    Source: arXiv 2305.08891, section 3.4; `rescale_noise_cfg` of diffusers' `pipeline_stable_diffusion.py`.
    """
    factor = _column(rescale.to(guided.dtype), guided)
    wanted, found = _deviations(torch.stack((cond, guided)))
    ratio = _column(wanted / found, guided)
    return factor * (guided * ratio) + (1 - factor) * guided


def _deviations(values: Tensor) -> Tensor:
    """Return the unbiased standard deviations `[2, B]` of `[2, B, ...]`, over all but the first two axes.

    torch.std is not used: how it splits a sum depends on the batch size.
    """
    flat = values.flatten(2)
    count = flat.shape[-1]
    centred = flat - (_last_axis_sum(flat) / count).unsqueeze(-1)
    return (_last_axis_sum(centred * centred) / (count - 1)).sqrt()


def _last_axis_sum(values: Tensor) -> Tensor:
    """Return the sum over the last axis by adding halves, an order that depends on its length alone."""
    while (count := values.shape[-1]) > 1:
        half = count // 2
        folded = values[..., :half] + values[..., half : 2 * half]
        values = torch.cat((folded, values[..., 2 * half :]), dim=-1) if count % 2 else folded
    return values[..., 0]


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *(1,) * (like.ndim - 1))
