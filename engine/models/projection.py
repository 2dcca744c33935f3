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
        if scale != 1.0:
            scale_values(
                packed,
                self.columns,
                [scale] * len(self.columns) if isinstance(scale, (int, float)) else scale,
            )
        return packed


def scale_values(packed: torch.Tensor, columns: Sequence[LayerColumns], scales: Sequence[float]) -> None:
    """Multiply each layer's values, in place, by its scale. Raises ``ValueError`` for another number of scales."""
    if len(scales) != len(columns):
        raise ValueError(f"{len(scales)} scales for {len(columns)} cross-attention layers")
    for layer, factor in zip(columns, scales, strict=True):
        if factor != 1.0:
            packed[..., layer.start + layer.width : layer.end] *= factor
