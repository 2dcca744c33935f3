"""Cross-attention whose keys and values are inputs of the UNet (DESIGN section 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F


class ReferenceSpan(NamedTuple):
    """Rows of a batch that bring the same number of reference tokens: ``rows [n]`` int64, ``packed [n, tokens, D]``."""

    rows: torch.Tensor
    packed: torch.Tensor


class CrossKV(NamedTuple):
    """What travels through diffusers' blocks in the place of ``encoder_hidden_states``.

    ``text`` is ``[B, T, D]`` and ``image`` ``[B, T_ip, D]``, both packed over layers (see ``LayerColumns``);
    ``image_mask`` is ``[B, 1, 1, T_ip]``, added to the image scores before the softmax, or None. ``spans``, where there
    are any, stand in the place of ``image``: a row in none of them has no reference.
    """

    text: torch.Tensor
    image: torch.Tensor
    image_mask: torch.Tensor | None
    spans: tuple[ReferenceSpan, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerColumns:
    """One cross-attention layer's columns of the packed K/V: keys ``[start, start + width)``, then values."""

    name: str
    start: int
    width: int
    heads: int

    @property
    def end(self) -> int:
        """First column after this layer's."""
        return self.start + 2 * self.width


def split_heads(packed: torch.Tensor, start: int, width: int, heads: int) -> torch.Tensor:
    """View columns of ``[B, T, D]`` as ``[B, heads, T, width / heads]``, without copying."""
    rows, tokens = packed.shape[0], packed.shape[1]
    return packed[:, :, start : start + width].view(rows, tokens, heads, width // heads).transpose(1, 2)


def attend(
    query: torch.Tensor, packed: torch.Tensor, at: LayerColumns, mask: torch.Tensor | None
) -> torch.Tensor:
    """Attend from ``[B, heads, pixels, d]`` over one layer's columns of the packed K/V."""
    key = split_heads(packed, at.start, at.width, at.heads)
    value = split_heads(packed, at.start + at.width, at.width, at.heads)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def attend_references(query: torch.Tensor, kv: CrossKV, at: LayerColumns) -> torch.Tensor:
    """Attend from ``[B, heads, pixels, d]`` over each row's reference tokens.

    With spans, a row's bits do not depend on how many tokens its neighbours bring; under a mask they do (in torch,
    whose kernels sum by width).
    """
    if not kv.spans:
        return attend(query, kv.image, at, kv.image_mask)
    attended = torch.zeros_like(query)
    for rows, packed in kv.spans:
        attended[rows] = attend(query[rows], packed, at, None)
    return attended


class SuppliedKVProcessor:
    """Attend over the text and, in a softmax of its own, over the reference, with K/V from outside.

    Equals diffusers' ``IPAdapterAttnProcessor2_0`` (models/attention_processor.py): the adapter's scale is already
    in the image values, since s * Attention(q, k, v) = Attention(q, k, s * v). Zero values leave the plain model.
    """

    def __init__(self, columns: LayerColumns) -> None:
        self.columns = columns

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: CrossKV,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Map ``[B, pixels, C]`` to ``[B, pixels, C]``."""
        at = self.columns
        query = attn.to_q(hidden_states)
        rows = query.shape[0]
        query = query.view(rows, -1, at.heads, at.width // at.heads).transpose(1, 2)
        attended = attend(query, encoder_hidden_states.text, at, None)
        attended = attended.transpose(1, 2).reshape(rows, -1, at.width)
        referenced = attend_references(query, encoder_hidden_states, at)
        attended = attended + referenced.transpose(1, 2).reshape(rows, -1, at.width)
        projected: torch.Tensor = attn.to_out[0](attended)
        return projected


def pack_layers(unet: nn.Module) -> tuple[LayerColumns, ...]:
    """Lay out the cross-attention layers' K/V columns, in the order in which IP-Adapter files number them.

    That order (1, 3, 5, ...) is the one of diffusers' ``attn_processors``: down, up, mid.
    """
    columns: list[LayerColumns] = []
    start = 0
    for processor in unet.attn_processors:  # type: ignore[union-attr]
        name = str(processor).removesuffix(".processor")
        if not name.endswith("attn2"):
            continue
        attn: Any = unet.get_submodule(name)
        layer = LayerColumns(name=name, start=start, width=attn.to_k.out_features, heads=attn.heads)
        columns.append(layer)
        start = layer.end
    return tuple(columns)
