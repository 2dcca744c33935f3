"""The parts of a model as modules of tensors alone, the shape in which they are traced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from engine.models.projection import KVProjector
from engine.models.unet import ConditionedUNet


class UNetGraph(nn.Module):
    """``ConditionedUNet`` whose further inputs, by name, follow one another without gaps."""

    def __init__(self, conditioned: ConditionedUNet, added: Sequence[str]) -> None:
        super().__init__()
        # The same name for the same module: the graph's weights are called as the model's files call them.
        self.unet = conditioned.unet
        self._conditioned = (conditioned,)
        self._added = tuple(added)

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        kv_text: torch.Tensor,
        kv_ip: torch.Tensor,
        ip_mask: torch.Tensor,
        *added: torch.Tensor,
    ) -> torch.Tensor:
        """Predict."""
        further = dict(zip(self._added, added, strict=True))
        return self._conditioned[0].forward(sample, timestep, kv_text, kv_ip, ip_mask, **further)  # type: ignore[arg-type]


class RegionalUNetGraph(nn.Module):
    """The same whose references have regions: ``kv_ip`` is ``[B, R, Tip, D]``, without a mask.

    The last inputs are the regions, ``[B, R, pixels]`` for each of ``conditioned.levels``.
    """

    def __init__(self, conditioned: ConditionedUNet, added: Sequence[str]) -> None:
        super().__init__()
        self.unet = conditioned.unet
        self._conditioned = (conditioned,)
        self._added = tuple(added)

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        kv_text: torch.Tensor,
        kv_ip: torch.Tensor,
        *more: torch.Tensor,
    ) -> torch.Tensor:
        """Predict."""
        conditioned, count = self._conditioned[0], len(self._added)
        further = dict(zip(self._added, more[:count], strict=True))
        regions = dict(zip(conditioned.levels, more[count:], strict=True))
        return conditioned.forward(sample, timestep, kv_text, kv_ip, regions=regions, **further)  # type: ignore[arg-type]


class DecoderGraph(nn.Module):
    """``latents [N, C, h, w]``, already divided by the scaling factor, to ``pixels [N, 3, H, W]`` in -1..1."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode."""
        (pixels,) = self.vae.decode(latents, return_dict=False)
        result: torch.Tensor = pixels
        return result


class TextGraph(nn.Module):
    """``input_ids [N, T]`` int64 to ``hidden [N, T, E]``, the last states."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Encode."""
        hidden: torch.Tensor = self.model(input_ids)[0]
        return hidden


class XLTextGraph(nn.Module):
    """``input_ids [N, T]`` int64 to ``hidden [N, T, E]``, the last states but one, and SDXL's ``pooled [N, P]``.

    The first of SDXL's encoders has no projection, so no ``pooled``.
    """

    def __init__(self, model: nn.Module, *, pooled: bool) -> None:
        super().__init__()
        self.model = model
        self.pooled = pooled

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Encode."""
        output = self.model(input_ids, output_hidden_states=True)
        hidden: torch.Tensor = output.hidden_states[-2]
        return (hidden, output.text_embeds) if self.pooled else hidden


class ImageGraph(nn.Module):
    """``pixels [N, 3, S, S]``, normalised, to ``image_embeds [N, P]`` and ``hidden [N, L, W]`` (the last but one)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode."""
        output = self.model(pixels, output_hidden_states=True)
        return output.image_embeds, output.hidden_states[-2]


class KVGraph(nn.Module):
    """``embedding [N, t, E]`` to ``kv [N, t, D]``, the keys and values of all layers, not scaled."""

    def __init__(self, projector: KVProjector) -> None:
        super().__init__()
        self.weight = nn.Parameter(projector.weight, requires_grad=False)

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """Project."""
        return nn.functional.linear(embedding, self.weight)
