"""The parts of a model as modules of tensors alone, the shape in which they are traced."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from engine.models.projection import KVProjector


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
    """``input_ids [N, T]`` int64 to ``hidden [N, T, E]``."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Encode."""
        hidden: torch.Tensor = self.model(input_ids)[0]
        return hidden


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
