"""From embeddings to the packed cross-attention keys and values of all layers, once a request."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from engine.models.attention import LayerColumns

LayerScales = float | Sequence[float]
"""The adapter's scale: one for all cross-attention layers, or one a layer in the order of ``LayerColumns``."""


def concat_kv(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Stack each layer's key and value weights ``[width, E]`` into one ``[D, E]``, in the packed order."""
    return torch.cat([weight.detach() for pair in pairs for weight in pair])


class KVProjector:
    """Projects embeddings ``[..., tokens, E]`` to packed K/V ``[..., tokens, D]`` in one matrix product.

    One projector for the text (the UNet's own ``to_k``, ``to_v``), one for each adapter (``to_k_ip``, ``to_v_ip``).
    """

    def __init__(self, weight: torch.Tensor, columns: Sequence[LayerColumns]) -> None:
        assert weight.shape[0] == columns[-1].end, (weight.shape, columns[-1].end)
        self.weight = weight
        self.columns = tuple(columns)

    def project(self, embedding: torch.Tensor, scale: LayerScales = 1.0) -> torch.Tensor:
        """Return K and ``scale`` * V of all layers."""
        packed = F.linear(embedding.to(self.weight.dtype), self.weight)
        if isinstance(scale, (int, float)):
            if scale == 1.0:
                return packed
            scale = [float(scale)] * len(self.columns)
        if len(scale) != len(self.columns):
            raise ValueError(f"{len(scale)} scales for {len(self.columns)} cross-attention layers")
        for layer, factor in zip(self.columns, scale, strict=True):
            packed[..., layer.start + layer.width : layer.end] *= factor
        return packed
