"""What some UNets read beside sample, timestep and K/V: SDXL's pooled text and sizes, LCM's guidance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from engine.backends.base import RowConditioning

TIME_IDS = 6
"""Original height and width, crop's top and left, target height and width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedInputs:
    """The further inputs of one UNet; each is one vector a row, constant for the row's life.

    ``text_embeds`` is the width of SDXL's pooled embedding (and says that it takes ``time_ids``), ``timestep_cond``
    that of LCM's guidance embedding; 0 where the UNet takes none.
    """

    text_embeds: int = 0
    timestep_cond: int = 0

    @classmethod
    def of(cls, unet: nn.Module) -> AddedInputs:
        """Read a ``UNet2DConditionModel``'s configuration."""
        config: Any = unet.config
        pooled = 0
        if config.addition_embed_type == "text_time":
            pooled = config.projection_class_embeddings_input_dim - TIME_IDS * config.addition_time_embed_dim
        return cls(text_embeds=pooled, timestep_cond=config.time_cond_proj_dim or 0)

    def widths(self) -> dict[str, int]:
        """Return the width of each input by its name in ``ConditionedUNet.forward``, in that order."""
        widths: dict[str, int] = {}
        if self.text_embeds:
            widths.update(text_embeds=self.text_embeds, time_ids=TIME_IDS)
        if self.timestep_cond:
            widths["timestep_cond"] = self.timestep_cond
        return widths

    def vectors(self, row: RowConditioning, default_size: tuple[int, int]) -> dict[str, torch.Tensor]:
        """Compute a row's vectors by name, f32; sizes are (height, width) in pixels.

        Raises ``ValueError`` for a prompt without the pooled embedding that the UNet reads.
        """
        vectors: dict[str, torch.Tensor] = {}
        if self.text_embeds:
            pooled = row.prompt.pooled
            if pooled is None or pooled.shape != (self.text_embeds,):
                found = None if pooled is None else list(pooled.shape)
                raise ValueError(f"the prompt's pooled embedding must be [{self.text_embeds}], not {found}")
            height, width = row.size or default_size
            # What diffusers' StableDiffusionXLPipeline takes where a caller says nothing, for both rows alike.
            ids = torch.tensor([height, width, 0, 0, height, width], dtype=torch.float32)
            vectors.update(text_embeds=pooled.float(), time_ids=ids)
        if self.timestep_cond:
            vectors["timestep_cond"] = guidance_embedding(row.guidance_scale, self.timestep_cond)
        return vectors


def guidance_embedding(guidance_scale: float, width: int) -> torch.Tensor:
    """Embed a guidance scale as ``[width]`` f32.

    Source: diffusers ``StableDiffusionPipeline.get_guidance_scale_embedding`` of ``guidance_scale - 1``, after
    google-research/vdm ``model_vdm.py``.
    """
    half = width // 2
    step = torch.log(torch.tensor(10000.0)) / (half - 1)
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32) * -step)
    angles = torch.tensor(guidance_scale - 1) * 1000.0 * frequencies
    embedding = torch.cat([torch.sin(angles), torch.cos(angles)])
    return torch.nn.functional.pad(embedding, (0, width - embedding.shape[0]))
