"""The names that SDXL's own code (and kohya's trainer after it) has for the layers of diffusers' UNet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RESNET = {
    "in_layers_0": "norm1",
    "in_layers_2": "conv1",
    "emb_layers_1": "time_emb_proj",
    "out_layers_0": "norm2",
    "out_layers_3": "conv2",
    "skip_connection": "conv_shortcut",
}


def sgm_names(config: Mapping[str, Any]) -> dict[str, str]:
    """Map prefixes of sgm's layer names to diffusers', both with underscores for dots, for a UNet's configuration.

    Source: Stability-AI/generative-models ``openaimodel.py``; diffusers ``convert_ldm_unet_checkpoint``.
    """
    names = {
        "time_embed_0": "time_embedding_linear_1",
        "time_embed_2": "time_embedding_linear_2",
        "label_emb_0_0": "add_embedding_linear_1",
        "label_emb_0_2": "add_embedding_linear_2",
        "input_blocks_0_0": "conv_in",
        "out_0": "conv_norm_out",
        "out_2": "conv_out",
        "middle_block_1": "mid_block_attentions_0",
    }

    def add_resnet(sgm: str, ours: str) -> None:
        names.update({f"{sgm}_{old}": f"{ours}_{new}" for old, new in RESNET.items()})

    add_resnet("middle_block_0", "mid_block_resnets_0")
    add_resnet("middle_block_2", "mid_block_resnets_1")
    downs, ups = list(config["down_block_types"]), list(config["up_block_types"])
    per_block = config.get("layers_per_block", 2)
    layers = [per_block] * len(downs) if isinstance(per_block, int) else list(per_block)
    at = 1
    for index, kind in enumerate(downs):
        for layer in range(layers[index]):
            add_resnet(f"input_blocks_{at}_0", f"down_blocks_{index}_resnets_{layer}")
            if "CrossAttn" in kind:
                names[f"input_blocks_{at}_1"] = f"down_blocks_{index}_attentions_{layer}"
            at += 1
        if index < len(downs) - 1:
            names[f"input_blocks_{at}_0_op"] = f"down_blocks_{index}_downsamplers_0_conv"
            at += 1
    at = 0
    for index, kind in enumerate(ups):
        count = layers[len(ups) - 1 - index] + 1
        for layer in range(count):
            add_resnet(f"output_blocks_{at}_0", f"up_blocks_{index}_resnets_{layer}")
            crossed = "CrossAttn" in kind
            if crossed:
                names[f"output_blocks_{at}_1"] = f"up_blocks_{index}_attentions_{layer}"
            if layer == count - 1 and index < len(ups) - 1:
                place = 2 if crossed else 1
                names[f"output_blocks_{at}_{place}_conv"] = f"up_blocks_{index}_upsamplers_0_conv"
            at += 1
    return names
