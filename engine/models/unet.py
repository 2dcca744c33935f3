"""The denoising UNet with conditioning as data: one graph for every prompt, reference, scale and adapter."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from engine.models.added import AddedInputs
from engine.models.attention import (
    CrossKV,
    LayerColumns,
    ReferenceSpan,
    SuppliedKVProcessor,
    pack_layers,
)
from engine.models.errors import UnsupportedModelError
from engine.models.layout import ModelLayout
from engine.models.lora import LoraSet
from engine.models.projection import KVProjector, concat_kv
from engine.models.regions import LevelMasks
from engine.models.sgm_names import sgm_names
from engine.models.weights import build_module, read_tensors

# Settings of UNet2DConditionModel that change its arithmetic in ways that this wrapper does not carry.
PLAIN: dict[str, tuple[object, ...]] = {
    "addition_embed_type": (None, "text_time"),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "dual_cross_attention": (False,),
    "only_cross_attention": (False, None),
    "center_input_sample": (False,),
    "cross_attention_norm": (None,),
    "mid_block_only_cross_attention": (False, None),
    "attention_type": ("default", None),
    "resnet_time_scale_shift": ("default", None),
    "time_embedding_act_fn": (None,),
}


class ConditionedUNet(nn.Module):
    """diffusers' ``UNet2DConditionModel`` whose cross-attention K and V are inputs.

    Takes ``sample [B, C, h, w]``, ``timestep [B]``, ``kv_text [B, T, D]``, ``kv_ip [B, T_ip, D]`` and optionally
    ``ip_mask [B, T_ip]`` (added to the scores: 0 keeps a token, -inf or a large negative number drops it); gives
    ``[B, C, h, w]``. Row by row independent, and free of branches on data, so it can be exported.

    SDXL also takes ``text_embeds [B, P]`` and ``time_ids [B, 6]``, LCM ``timestep_cond [B, W]``: ``added`` says which,
    and computes a row's. ``spans`` are for torch alone: they replace ``kv_ip`` in batches whose rows bring different
    numbers of reference tokens. With ``regions`` (see ``CrossKV``) ``kv_ip`` is ``[B, references, T_ip, D]``.
    """

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.added = AddedInputs.of(unet)
        self.columns: tuple[LayerColumns, ...] = pack_layers(unet)
        self.levels = tuple(sorted({layer.level for layer in self.columns}))
        """The levels that have cross-attention."""
        self.width = self.columns[-1].end
        """D: columns of the packed K/V."""
        for layer in self.columns:
            unet.get_submodule(layer.name).set_processor(SuppliedKVProcessor(layer))  # type: ignore[operator]
        self.unet = unet

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        kv_text: torch.Tensor,
        kv_ip: torch.Tensor,
        ip_mask: torch.Tensor | None = None,
        text_embeds: torch.Tensor | None = None,
        time_ids: torch.Tensor | None = None,
        timestep_cond: torch.Tensor | None = None,
        *,
        spans: tuple[ReferenceSpan, ...] = (),
        regions: LevelMasks | None = None,
    ) -> torch.Tensor:
        """Run one tick's rows through the UNet."""
        mask = None if ip_mask is None else ip_mask[:, None, None, :]
        added = None if text_embeds is None else {"text_embeds": text_embeds, "time_ids": time_ids}
        (output,) = self.unet(
            sample,
            timestep,
            CrossKV(kv_text, kv_ip, mask, spans, regions),
            timestep_cond=None if timestep_cond is None else timestep_cond.to(sample.dtype),
            added_cond_kwargs=added,
            return_dict=False,
        )
        prediction: torch.Tensor = output
        return prediction


def load_unet(
    layout: ModelLayout, *, dtype: torch.dtype, loras: LoraSet | None = None
) -> tuple[ConditionedUNet, KVProjector, dict[str, Any]]:
    """Load the UNet; return it, the projector of text to its K/V, and its configuration.

    Raises the ``ModelError`` family; ``UnsupportedModelError`` names a setting outside SD 1.x, 2.x and SDXL.
    """
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    config = layout.config("unet")
    path = layout.root / "unet" / "config.json"
    for name, allowed in PLAIN.items():
        if config.get(name, allowed[0]) not in allowed:
            raise UnsupportedModelError(
                f"unet setting {name} is not supported",
                path=path,
                expected=repr(allowed[0]),
                found=repr(config[name]),
            )
    wanted = "text_time" if layout.is_sdxl else None
    if config.get("addition_embed_type") != wanted:
        raise UnsupportedModelError(
            f"unet setting addition_embed_type does not go with {layout.index['_class_name']}",
            path=path,
            expected=repr(wanted),
            found=repr(config.get("addition_embed_type")),
        )
    files = layout.weights("unet", "diffusion_pytorch_model")
    tensors = read_tensors(files)
    if loras is not None:
        loras.fuse("unet", tensors, aliases=sgm_names(config))
    unet = build_module(lambda: UNet2DConditionModel.from_config(config), tensors, files[0], dtype=dtype)
    conditioned = ConditionedUNet(unet).eval()
    # The text's K/V weights live in the projector alone: the UNet's own copies are views of it.
    attentions: list[Any] = [unet.get_submodule(layer.name) for layer in conditioned.columns]
    weight = concat_kv([(attn.to_k.weight, attn.to_v.weight) for attn in attentions])
    for layer, attn in zip(conditioned.columns, attentions, strict=True):
        attn.to_k.weight.data = weight[layer.start : layer.start + layer.width]
        attn.to_v.weight.data = weight[layer.start + layer.width : layer.end]
    settings: Any = unet.config
    return conditioned, KVProjector(weight, conditioned.columns), dict(settings)
