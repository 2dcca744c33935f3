"""Cross-attention whose keys and values are inputs of the UNet (DESIGN section 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from engine.models.regions import LevelMasks


class ReferenceSpan(NamedTuple):
    """Rows of a batch that bring the same number of reference tokens: ``rows [n]`` int64, ``packed [n, tokens, D]``.

    With ``regions`` (``[n, references, pixels]`` by level) ``packed`` is ``[n, references, tokens, D]``.
    """

    rows: torch.Tensor
    packed: torch.Tensor
    regions: LevelMasks | None = None


class CrossKV(NamedTuple):
    """What travels through diffusers' blocks in the place of ``encoder_hidden_states``.

    ``text`` is ``[B, T, D]`` and ``image`` ``[B, T_ip, D]``, both packed over layers (see ``LayerColumns``);
    ``image_mask`` is ``[B, 1, 1, T_ip]``, added to the image scores before the softmax, or None. ``spans``, where there
    are any, stand in the place of ``image``: a row in none of them has no reference.

    With ``regions`` (``[B, references, pixels]`` by level) ``image`` is ``[B, references, T_ip, D]``, without a mask.
    """

    text: torch.Tensor
    image: torch.Tensor
    image_mask: torch.Tensor | None
    spans: tuple[ReferenceSpan, ...] = ()
    regions: LevelMasks | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerColumns:
    """One cross-attention layer's columns of the packed K/V: keys ``[start, start + width)``, then values.

    ``level`` says how often the latents' height and width are halved where the layer stands.
    """

    name: str
    start: int
    width: int
    heads: int
    level: int

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
    if kv.regions is not None:
        return attend_regions(query, kv.image, at, kv.regions)
    if not kv.spans:
        return attend(query, kv.image, at, kv.image_mask)
    attended = torch.zeros_like(query)
    for rows, packed, regions in kv.spans:
        if regions is None:
            attended[rows] = attend(query[rows], packed, at, None)
        else:
            attended[rows] = attend_regions(query[rows], packed, at, regions)
    return attended


def attend_regions(
    query: torch.Tensor, packed: torch.Tensor, at: LayerColumns, regions: LevelMasks
) -> torch.Tensor:
    """Attend from ``[B, heads, pixels, d]`` over each reference by itself, and add up what each gives in its region.

    ``packed`` is ``[B, references, tokens, D]``.
    """
    rows, references, tokens, _ = packed.shape

    def heads(start: int) -> torch.Tensor:
        columns = packed[..., start : start + at.width]
        return columns.reshape(rows, references, tokens, at.heads, at.width // at.heads).transpose(2, 3)

    asked = query.unsqueeze(1).expand(-1, references, -1, -1, -1)
    each = F.scaled_dot_product_attention(asked, heads(at.start), heads(at.start + at.width))
    weights = regions[at.level].to(each.dtype)
    return (each * weights[:, :, None, :, None]).sum(1)


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
        layer = LayerColumns(
            name=name,
            start=start,
            width=attn.to_k.out_features,
            heads=attn.heads,
            level=_level(name, len(unet.down_blocks)),  # type: ignore[arg-type]
        )
        columns.append(layer)
        start = layer.end
    return tuple(columns)


def _level(layer: str, levels: int) -> int:
    """Return how often the latents are halved at a layer; every block but the last on the way down halves them."""
    block, _, rest = layer.partition(".")
    match block:
        case "down_blocks":
            return int(rest.partition(".")[0])
        case "up_blocks":
            return levels - 1 - int(rest.partition(".")[0])
        case _:
            return levels - 1
