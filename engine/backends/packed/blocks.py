"""The blocks of Stable Diffusion's UNet and VAE on packed weights, between which images stay ``[B, H * W, C]``.

The arithmetic is diffusers' (models/resnet.py, models/attention.py, models/transformers/transformer_2d.py); what
differs is its order within f32 rounding. Measured in docs/adr/0004-torch-cpu-packed-blocks.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from engine.backends.packed.onednn import PackedConv, PackedLinear
from engine.models.attention import CrossKV, LayerColumns, attend, attend_references

Tensor = torch.Tensor


class UnsupportedBlockError(Exception):
    """A block with a setting that the packed form does not have; the caller keeps the plain module."""


def require(condition: object, what: str) -> None:
    """Raise ``UnsupportedBlockError`` unless the condition holds."""
    if not condition:
        raise UnsupportedBlockError(what)


class Size(NamedTuple):
    """Batch, height and width of an image that is held as ``[B, H * W, C]``."""

    rows: int
    height: int
    width: int

    def image(self, tokens: Tensor) -> Tensor:
        """View ``[B, H * W, C]`` as a channels-last ``[B, C, H, W]``."""
        return tokens.view(self.rows, self.height, self.width, -1).permute(0, 3, 1, 2)


def to_tokens(image: Tensor) -> Tensor:
    """View a channels-last ``[B, C, H, W]`` as ``[B, H * W, C]``."""
    return image.permute(0, 2, 3, 1).flatten(1, 2)


class PackedNorm:
    """GroupNorm on tokens, optionally after adding a bias a row and channel, optionally before SiLU.

    torch's own kernel for channels-last is three times slower. Statistics are taken in two passes, a channel at a time,
    and joined over groups: var(group) = mean(var(channel)) + var(mean(channel)).
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        self.groups = norm.num_groups
        self.eps = norm.eps
        self.weight = norm.weight.detach().float().view(1, self.groups, -1)
        self.bias = norm.bias.detach().float().view(1, self.groups, -1)

    def __call__(self, x: Tensor, *, silu: bool, shift: Tensor | None = None) -> Tensor:
        """Normalise ``x + shift``: ``x [B, tokens, C]``, ``shift [B, C]``."""
        rows, _, channels = x.shape
        dtype = x.dtype
        x = x.float()  # bfloat16 has too few digits for the statistics; a no-op in f32
        means = x.mean(1)
        centred = x - means.view(rows, 1, channels)
        variances = centred.square().mean(1)
        if shift is not None:
            means = means + shift
        by_group = means.view(rows, self.groups, -1)
        offsets = by_group - by_group.mean(2, keepdim=True)
        variance = torch.addcmul(variances.view(rows, self.groups, -1), offsets, offsets).mean(
            2, keepdim=True
        )
        scale = torch.rsqrt(variance + self.eps) * self.weight
        bias = torch.addcmul(self.bias, offsets, scale)
        y = torch.addcmul(bias.view(rows, 1, channels), centred, scale.view(rows, 1, channels))
        return (F.silu(y, inplace=True) if silu else y).to(dtype)


class PackedResnet:
    """diffusers' ``ResnetBlock2D``. ``shift`` is this block's projected time embedding ``[B, C]``, or None (VAE)."""

    def __init__(self, block: Any, size: Size) -> None:
        # "group" is the VAE's word for having no time embedding.
        styles = ("default",) if block.time_emb_proj is not None else ("default", "group")
        require(block.time_embedding_norm in styles and block.output_scale_factor == 1, "resnet variant")
        require(block.upsample is None and block.downsample is None, "resnet that resamples")
        require(isinstance(block.nonlinearity, nn.SiLU), "resnet activation")
        require(isinstance(block.norm1, nn.GroupNorm), "resnet norm")
        self.norm1 = PackedNorm(block.norm1)
        self.conv1 = PackedConv(block.conv1, (size.rows, block.conv1.in_channels, size.height, size.width))
        self.norm2 = PackedNorm(block.norm2)
        self.conv2 = PackedConv(block.conv2, (size.rows, block.conv2.in_channels, size.height, size.width))
        self.shortcut = None if block.conv_shortcut is None else pack_pointwise(block.conv_shortcut, size)

    def __call__(self, x: Tensor, size: Size, shift: Tensor | None) -> Tensor:
        """Map ``[B, tokens, C]`` to ``[B, tokens, C']``."""
        h = to_tokens(self.conv1(size.image(self.norm1(x, silu=True))))
        h = self.norm2(h, silu=True, shift=shift)
        residual = x if self.shortcut is None else self.shortcut(x)
        return to_tokens(self.conv2.plus(size.image(h), size.image(residual)))


def pack_linear(layer: nn.Linear, size: Size) -> PackedLinear:
    """Pack a linear layer over the tokens of an image of this size."""
    return PackedLinear(layer.weight, layer.bias, size.rows * size.height * size.width)


def pack_pointwise(layer: Any, size: Size) -> PackedLinear:
    """Pack a 1x1 convolution, or the linear layer that some models have in its place, as a linear layer over tokens."""
    if isinstance(layer, nn.Linear):
        return pack_linear(layer, size)
    require(layer.kernel_size == (1, 1) and layer.stride == (1, 1), "pointwise convolution")
    return PackedLinear(layer.weight.flatten(1), layer.bias, size.rows * size.height * size.width)


class PackedTransformerLayer:
    """diffusers' ``BasicTransformerBlock`` with supplied cross-attention K/V (see ``SuppliedKVProcessor``)."""

    def __init__(self, block: Any, columns: LayerColumns, size: Size) -> None:
        require(block.norm_type == "layer_norm" and block.pos_embed is None, "transformer norm")
        require(not block.only_cross_attention, "cross-attention alone")
        projection, _, out = block.ff.net
        require(type(projection).__name__ == "GEGLU", "feed-forward activation")
        self.norms = (block.norm1, block.norm2, block.norm3)
        own, cross = block.attn1, block.attn2
        for attn in (own, cross):
            require(
                attn.group_norm is None and attn.norm_q is None and not attn.residual_connection, "attention"
            )
            require(attn.rescale_output_factor == 1.0, "attention output scale")
        self.heads = own.heads
        weights = torch.cat([own.to_q.weight, own.to_k.weight, own.to_v.weight])
        biases = None if own.to_q.bias is None else torch.cat([own.to_q.bias, own.to_k.bias, own.to_v.bias])
        vectors = size.rows * size.height * size.width
        self.qkv = PackedLinear(weights, biases, vectors)
        self.own_out = pack_linear(own.to_out[0], size)
        self.columns = columns
        self.query = pack_linear(cross.to_q, size)
        self.cross_out = pack_linear(cross.to_out[0], size)
        value, gate = projection.proj.weight.chunk(2)
        value_bias, gate_bias = projection.proj.bias.chunk(2)
        self.gate = PackedLinear(gate, gate_bias, vectors)
        self.value = PackedLinear(value, value_bias, vectors)
        self.feed_out = pack_linear(out, size)

    def __call__(self, x: Tensor, kv: CrossKV) -> Tensor:
        """Map ``[B, tokens, C]`` to ``[B, tokens, C]``."""
        rows, tokens, width = x.shape
        packed = self.qkv(self.norms[0](x)).view(rows, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(packed[0], packed[1], packed[2])
        x = self.own_out.combined(attended.transpose(1, 2).reshape(rows, tokens, width), x, "add")

        at = self.columns
        query = self.query(self.norms[1](x)).view(rows, tokens, at.heads, -1).transpose(1, 2)
        both = attend(query, kv.text, at, None) + attend_references(query, kv, at)
        x = self.cross_out.combined(both.transpose(1, 2).reshape(rows, tokens, width), x, "add")

        normal = self.norms[2](x)
        hidden = self.value.combined(normal, self.gate.gelu(normal), "mul")
        return self.feed_out.combined(hidden, x, "add")


class PackedTransformer:
    """diffusers' ``Transformer2DModel`` on an image."""

    def __init__(self, block: Any, columns: list[LayerColumns], size: Size) -> None:
        require(block.is_input_continuous, "transformer input")
        self.norm = PackedNorm(block.norm)
        self.proj_in = pack_pointwise(block.proj_in, size)
        self.layers = [
            PackedTransformerLayer(layer, at, size)
            for layer, at in zip(block.transformer_blocks, columns, strict=True)
        ]
        self.proj_out = pack_pointwise(block.proj_out, size)

    def __call__(self, x: Tensor, kv: CrossKV) -> Tensor:
        """Map ``[B, tokens, C]`` to ``[B, tokens, C]``."""
        h = self.proj_in(self.norm(x, silu=False))
        for layer in self.layers:
            h = layer(h, kv)
        return self.proj_out.combined(h, x, "add")


class PackedUpsample:
    """diffusers' ``Upsample2D``: nearest neighbours, then a convolution."""

    def __init__(self, block: Any, size: Size) -> None:
        require(block.use_conv and not block.use_conv_transpose and block.norm is None, "upsampling")
        self.conv = PackedConv(block.conv, (size.rows, block.conv.in_channels, size.height, size.width))

    def __call__(self, x: Tensor, size: Size, target: Size) -> Tensor:
        """Enlarge to the target's height and width."""
        image = F.interpolate(size.image(x), size=(target.height, target.width), mode="nearest")
        return to_tokens(self.conv(image))


class PackedDownsample:
    """diffusers' ``Downsample2D`` with a convolution of stride 2."""

    def __init__(self, block: Any, size: Size) -> None:
        require(block.use_conv and block.norm is None and block.padding == 1, "downsampling")
        self.conv = PackedConv(block.conv, (size.rows, block.conv.in_channels, size.height, size.width))

    def __call__(self, x: Tensor, size: Size) -> tuple[Tensor, Size]:
        """Halve height and width, rounding up."""
        image = self.conv(size.image(x))
        return to_tokens(image), Size(size.rows, image.shape[2], image.shape[3])


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedStage:
    """One resolution of the UNet on its way down or up; ``attentions`` is empty or one a resnet."""

    resnets: list[PackedResnet]
    attentions: list[PackedTransformer]
    resample: Any
