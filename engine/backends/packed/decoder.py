"""The VAE's decoder on packed weights."""

from __future__ import annotations

from typing import Any

import structlog
import torch
from torch import nn
from torch.nn import functional as F

from engine.backends.packed.blocks import (
    PackedNorm,
    PackedResnet,
    PackedUpsample,
    Size,
    UnsupportedBlockError,
    pack_linear,
    pack_pointwise,
    require,
    to_tokens,
)
from engine.backends.packed.onednn import PackedConv, PackedLinear, available
from engine.models.vae import LatentDecoder, to_uint8

log = structlog.get_logger()

Tensor = torch.Tensor
CELLS = 1024
"""Latent cells decoded at a time: four pictures of 128x128, one of 256x256 or more. Larger batches gain nothing on a
CPU, where the widest layer would leave the cache."""


class PackedSpatialAttention:
    """diffusers' ``Attention`` over the pixels of an image, as the VAE's middle has it."""

    def __init__(self, attn: Any, size: Size) -> None:
        require(attn.residual_connection and attn.rescale_output_factor == 1.0, "VAE attention")
        require(attn.spatial_norm is None and isinstance(attn.group_norm, nn.GroupNorm), "VAE attention norm")
        self.norm = PackedNorm(attn.group_norm)
        self.heads = attn.heads
        layers = (attn.to_q, attn.to_k, attn.to_v)
        require(all(layer.bias is not None for layer in layers), "VAE attention bias")
        self.qkv = PackedLinear(
            torch.cat([layer.weight for layer in layers]),
            torch.cat([layer.bias for layer in layers]),
            size.rows * size.height * size.width,
        )
        self.out = pack_linear(attn.to_out[0], size)

    def __call__(self, x: Tensor) -> Tensor:
        """Map ``[B, tokens, C]`` to ``[B, tokens, C]``."""
        rows, tokens, width = x.shape
        packed = (
            self.qkv(self.norm(x, silu=False)).view(rows, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        )
        attended = F.scaled_dot_product_attention(packed[0], packed[1], packed[2])
        return self.out.combined(attended.transpose(1, 2).reshape(rows, tokens, width), x, "add")


class PackedDecoder:
    """``LatentDecoder.decode`` on packed weights: equal to it but for pictures' last bit."""

    def __init__(self, decoder: LatentDecoder, height: int, width: int) -> None:
        vae: Any = decoder.vae
        net: Any = vae.decoder
        here = Size(1, height, width)
        self.scaling_factor = decoder.scaling_factor
        self.dtype: torch.dtype = vae.dtype
        self.post_quant = None if vae.post_quant_conv is None else pack_pointwise(vae.post_quant_conv, here)
        self.conv_in = PackedConv(net.conv_in, (1, net.conv_in.in_channels, height, width))
        self.middle: list[PackedResnet | PackedSpatialAttention] = [
            PackedResnet(net.mid_block.resnets[0], here)
        ]
        for attention, resnet in zip(net.mid_block.attentions, net.mid_block.resnets[1:], strict=True):
            if attention is not None:
                self.middle.append(PackedSpatialAttention(attention, here))
            self.middle.append(PackedResnet(resnet, here))
        self.stages: list[tuple[list[PackedResnet], PackedUpsample | None]] = []
        for block in net.up_blocks:
            require(type(block).__name__ == "UpDecoderBlock2D", type(block).__name__)
            resnets = [PackedResnet(resnet, here) for resnet in block.resnets]
            upsample = None
            if block.upsamplers:
                here = Size(1, here.height * 2, here.width * 2)
                upsample = PackedUpsample(block.upsamplers[0], here)
            self.stages.append((resnets, upsample))
        require(isinstance(net.conv_norm_out, nn.GroupNorm), "VAE output norm")
        self.norm_out = PackedNorm(net.conv_norm_out)
        self.conv_out = PackedConv(net.conv_out, (1, net.conv_out.in_channels, here.height, here.width))

    def decode(self, latents: Tensor) -> Tensor:
        """Decode ``[N, C, h, w]`` f32 to ``[N, H, W, 3]`` uint8."""
        chunk = max(1, CELLS // (latents.shape[2] * latents.shape[3]))
        with torch.inference_mode():
            scaled = (latents / self.scaling_factor).to(self.dtype)
            return torch.cat([to_uint8(self._decode(part)) for part in torch.split(scaled, chunk)])

    def _decode(self, latents: Tensor) -> Tensor:
        size = Size(latents.shape[0], latents.shape[2], latents.shape[3])
        image = latents.contiguous(memory_format=torch.channels_last)
        if self.post_quant is not None:
            image = size.image(self.post_quant(to_tokens(image)))
        x = to_tokens(self.conv_in(image))
        for part in self.middle:
            x = part(x, size, None) if isinstance(part, PackedResnet) else part(x)
        for resnets, upsample in self.stages:
            for resnet in resnets:
                x = resnet(x, size, None)
            if upsample is not None:
                target = Size(size.rows, size.height * 2, size.width * 2)
                x, size = upsample(x, size, target), target
        return self.conv_out(size.image(self.norm_out(x, silu=True)))


def pack_decoder(decoder: LatentDecoder, height: int, width: int) -> PackedDecoder | None:
    """Pack a decoder for latents of this size; None where torch or the model lacks what that takes."""
    if not available():
        log.warning("decoder not packed, it runs slower", reason="this torch has no packed operators")
        return None
    try:
        with torch.no_grad():
            return PackedDecoder(decoder, height, width)
    except UnsupportedBlockError as error:
        log.warning("decoder not packed, it runs slower", reason=str(error))
        return None
