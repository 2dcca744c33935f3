"""Train-time IP-Adapter: decoupled cross-attention beside a frozen UNet."""

import copy
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.embeddings import ImageProjection
from torch import Tensor, nn
from torch.nn import functional as F

REFERENCE_TOKENS = 4


class AdapterAttention(nn.Module):
    """Attend to text and, with keys and values of their own, to reference tokens (arXiv 2308.06721).

    `encoder_hidden_states` is `[B, 77 + 4, D]`, text first. Keys and values start as the text's, as in
    tencent-ailab/IP-Adapter (tutorial_train.py).
    """

    def __init__(self, text: Attention) -> None:
        super().__init__()
        self.to_k_ip = copy.deepcopy(text.to_k).requires_grad_(True)
        self.to_v_ip = copy.deepcopy(text.to_v).requires_grad_(True)

    def forward(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """Return the attended states `[B, L, width]`."""
        text, reference = encoder_hidden_states.split(
            [encoder_hidden_states.shape[1] - REFERENCE_TOKENS, REFERENCE_TOKENS], dim=1
        )
        query = self._heads(attn, attn.to_q(hidden_states))
        out = F.scaled_dot_product_attention(
            query, self._heads(attn, attn.to_k(text)), self._heads(attn, attn.to_v(text))
        )
        out = out + F.scaled_dot_product_attention(
            query, self._heads(attn, self.to_k_ip(reference)), self._heads(attn, self.to_v_ip(reference))
        )
        out = out.transpose(1, 2).flatten(2)
        projected: Tensor = attn.to_out[1](attn.to_out[0](out))
        return projected

    @staticmethod
    def _heads(attn: Attention, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
        return heads


class AdaptedUnet(nn.Module):
    """Join a frozen UNet, the projection of image embeddings to reference tokens, and the adapter's attention.

    Only projection and adapter train.
    """

    def __init__(self, unet: UNet2DConditionModel, *, embed_width: int) -> None:
        super().__init__()
        self.unet = unet.requires_grad_(False)
        width = int(unet.config.cross_attention_dim)
        self.projection = ImageProjection(embed_width, width, REFERENCE_TOKENS)
        processors: dict[str, Any] = {}
        for name in unet.attn_processors:
            if name.endswith("attn1.processor"):
                processors[name] = AttnProcessor2_0()
            else:
                owner = unet.get_submodule(name.removesuffix(".processor"))
                processors[name] = AdapterAttention(owner)
        unet.set_attn_processor(processors)

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor, embeds: Tensor) -> Tensor:
        """Return the UNet's prediction `[B, C, h, w]` for image embeddings `[B, embed_width]`."""
        states = torch.cat([text, self.projection(embeds).to(text.dtype)], dim=1)
        prediction: Tensor = self.unet(sample, timestep, encoder_hidden_states=states).sample
        return prediction

    def adapter_weights(self) -> dict[str, Tensor]:
        """Return the adapter's weights under h94/IP-Adapter's published names.

        There the processors sit in one list with those of self-attention between them, so cross-attention n
        is numbered 2n + 1; diffusers' loader (loaders/unet.py, `_convert_ip_adapter_attn_to_diffusers`)
        counts the same way.
        """
        projection = self.projection
        weights = {
            "image_proj.proj.weight": projection.image_embeds.weight,
            "image_proj.proj.bias": projection.image_embeds.bias,
            "image_proj.norm.weight": projection.norm.weight,
            "image_proj.norm.bias": projection.norm.bias,
        }
        number = 1
        for processor in self.unet.attn_processors.values():
            if isinstance(processor, AdapterAttention):
                weights[f"ip_adapter.{number}.to_k_ip.weight"] = processor.to_k_ip.weight
                weights[f"ip_adapter.{number}.to_v_ip.weight"] = processor.to_v_ip.weight
                number += 2
        return {k: v.detach() for k, v in weights.items()}
