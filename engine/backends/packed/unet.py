"""The whole UNet on packed weights: ``ConditionedUNet``'s function, faster on a CPU."""

from __future__ import annotations

from typing import Any

import structlog
import torch
from torch import nn
from torch.nn import functional as F

from engine.backends.packed.blocks import (
    PackedDownsample,
    PackedNorm,
    PackedResnet,
    PackedStage,
    PackedTransformer,
    PackedUpsample,
    Size,
    UnsupportedBlockError,
    require,
    to_tokens,
)
from engine.backends.packed.onednn import PackedConv, PackedLinear, available
from engine.models.attention import CrossKV, ReferenceSpan
from engine.models.unet import ConditionedUNet

log = structlog.get_logger()

Tensor = torch.Tensor
DOWN = ("CrossAttnDownBlock2D", "DownBlock2D")
UP = ("CrossAttnUpBlock2D", "UpBlock2D")


class PackedAddedEmbedding:
    """SDXL's embedding of the pooled text and the sizes: diffusers' ``UNet2DConditionModel.get_aug_embed``."""

    def __init__(self, unet: Any, rows: int) -> None:
        layers = unet.add_embedding
        require(
            layers.cond_proj is None and layers.post_act is None and isinstance(layers.act, nn.SiLU),
            "added embedding",
        )
        self.project = unet.add_time_proj
        self.layer_in = PackedLinear(layers.linear_1.weight, layers.linear_1.bias, rows)
        self.layer_out = PackedLinear(layers.linear_2.weight, layers.linear_2.bias, rows)

    def __call__(self, embedding: Tensor, text_embeds: Tensor, time_ids: Tensor) -> Tensor:
        """Add to the time embedding ``[B, C]``: ``text_embeds [B, P]``, ``time_ids [B, 6]``."""
        sizes = self.project(time_ids.flatten()).reshape(text_embeds.shape[0], -1)
        added = torch.cat([text_embeds.to(sizes.dtype), sizes], dim=1).to(embedding.dtype)
        return self.layer_out.combined(F.silu(self.layer_in(added)), embedding, "add")


class PackedUNet:
    """``ConditionedUNet.forward`` on packed weights, in the same type.

    All time projections of all resnets are one matrix product a tick. The packed weights are a copy: drop the module
    if memory matters. ``size`` is what the weights are packed for; others run too, reordering where they must.
    """

    def __init__(self, conditioned: ConditionedUNet, size: Size) -> None:
        unet: Any = conditioned.unet
        self._columns = {layer.name: layer for layer in conditioned.columns}
        self._time_projections: list[nn.Linear] = []
        self.time_proj = unet.time_proj
        time = unet.time_embedding
        require(time.post_act is None and isinstance(time.act, nn.SiLU), "time embedding")
        require(unet.time_embed_act is None and unet.conv_norm_out is not None, "UNet head")
        # torch's own linear layer is not bit-independent of a row's position at 5, 6, 7 or 10 rows; oneDNN's is.
        self.time_in = PackedLinear(time.linear_1.weight, time.linear_1.bias, size.rows)
        self.time_out = PackedLinear(time.linear_2.weight, time.linear_2.bias, size.rows)
        self.guidance = (
            None if time.cond_proj is None else PackedLinear(time.cond_proj.weight, None, size.rows)
        )
        self.added = PackedAddedEmbedding(unet, size.rows) if conditioned.added.text_embeds else None
        self.conv_in = PackedConv(
            unet.conv_in, (size.rows, unet.conv_in.in_channels, size.height, size.width)
        )
        self.down = []
        here = size
        for index, block in enumerate(unet.down_blocks):
            require(type(block).__name__ in DOWN, type(block).__name__)
            resamplers = block.downsamplers or [None]
            require(len(resamplers) == 1, "several downsamplers")
            self.down.append(
                self._stage(
                    f"down_blocks.{index}",
                    block,
                    here,
                    None if resamplers[0] is None else PackedDownsample(resamplers[0], here),
                )
            )
            if resamplers[0] is not None:
                here = Size(here.rows, (here.height + 1) // 2, (here.width + 1) // 2)
        require(type(unet.mid_block).__name__ == "UNetMidBlock2DCrossAttn", "mid block")
        self.mid = self._stage("mid_block", unet.mid_block, here, None)
        self.up = []
        for index, block in enumerate(unet.up_blocks):
            require(type(block).__name__ in UP and block.resolution_idx == index, type(block).__name__)
            larger = Size(here.rows, here.height * 2, here.width * 2)
            resamplers = block.upsamplers or [None]
            require(len(resamplers) == 1, "several upsamplers")
            self.up.append(
                self._stage(
                    f"up_blocks.{index}",
                    block,
                    here,
                    None if resamplers[0] is None else PackedUpsample(resamplers[0], larger),
                )
            )
            here = here if resamplers[0] is None else larger
        self.norm_out = PackedNorm(unet.conv_norm_out)
        self.conv_out = PackedConv(
            unet.conv_out, (size.rows, unet.conv_out.in_channels, size.height, size.width)
        )
        self._widths = [layer.out_features for layer in self._time_projections]
        self.shifts = PackedLinear(
            torch.cat([layer.weight for layer in self._time_projections]),
            # conv1's bias comes before the shift; both are constants of the row.
            torch.cat([layer.bias for layer in self._time_projections]),
            size.rows,
        )
        del self._time_projections, self._columns

    def _stage(self, name: str, block: Any, size: Size, resample: Any) -> PackedStage:
        attentions = list(getattr(block, "attentions", None) or [])
        self._time_projections += [resnet.time_emb_proj for resnet in block.resnets]
        return PackedStage(
            resnets=[PackedResnet(resnet, size) for resnet in block.resnets],
            attentions=[
                PackedTransformer(
                    attention,
                    [
                        self._columns[f"{name}.attentions.{index}.transformer_blocks.{layer}.attn2"]
                        for layer in range(len(attention.transformer_blocks))
                    ],
                    size,
                )
                for index, attention in enumerate(attentions)
            ],
            resample=resample,
        )

    def __call__(
        self,
        sample: Tensor,
        timestep: Tensor,
        kv_text: Tensor,
        kv_ip: Tensor,
        ip_mask: Tensor | None = None,
        text_embeds: Tensor | None = None,
        time_ids: Tensor | None = None,
        timestep_cond: Tensor | None = None,
        *,
        spans: tuple[ReferenceSpan, ...] = (),
    ) -> Tensor:
        """Run one tick's rows; see ``ConditionedUNet.forward``."""
        kv = CrossKV(kv_text, kv_ip, None if ip_mask is None else ip_mask[:, None, None, :], spans)
        embedding = self.time_proj(timestep).to(sample.dtype)
        if self.guidance is not None and timestep_cond is not None:
            embedding = self.guidance.combined(timestep_cond.to(sample.dtype), embedding, "add")
        embedding = self.time_out(F.silu(self.time_in(embedding)))
        if self.added is not None and text_embeds is not None and time_ids is not None:
            embedding = self.added(embedding, text_embeds, time_ids)
        shifts = iter(torch.split(self.shifts(F.silu(embedding)), self._widths, dim=1))
        size = Size(sample.shape[0], sample.shape[2], sample.shape[3])
        x = to_tokens(self.conv_in(sample.contiguous(memory_format=torch.channels_last)))
        skips = [(x, size)]
        for stage in self.down:
            for index, resnet in enumerate(stage.resnets):
                x = resnet(x, size, next(shifts))
                if stage.attentions:
                    x = stage.attentions[index](x, kv)
                skips.append((x, size))
            if stage.resample is not None:
                x, size = stage.resample(x, size)
                skips.append((x, size))
        x = self.mid.resnets[0](x, size, next(shifts))
        for attention, resnet in zip(self.mid.attentions, self.mid.resnets[1:], strict=True):
            x = resnet(attention(x, kv), size, next(shifts))
        for stage in self.up:
            for index, resnet in enumerate(stage.resnets):
                x = resnet(torch.cat([x, skips.pop()[0]], dim=2), size, next(shifts))
                if stage.attentions:
                    x = stage.attentions[index](x, kv)
            if stage.resample is not None:
                target = skips[-1][1]
                x, size = stage.resample(x, size, target), target
        return self.conv_out(size.image(self.norm_out(x, silu=True))).contiguous()


def pack_unet(conditioned: ConditionedUNet, rows: int, height: int, width: int) -> PackedUNet | None:
    """Pack a UNet for this batch and latent size; None where torch or the model lacks what that takes."""
    if not available():
        log.warning("UNet not packed, it runs slower", reason="this torch has no packed operators")
        return None
    try:
        with torch.no_grad():
            return PackedUNet(conditioned, Size(rows, height, width))
    except UnsupportedBlockError as error:
        log.warning("UNet not packed, it runs slower", reason=str(error))
        return None
