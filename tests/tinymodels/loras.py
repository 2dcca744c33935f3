"""Random LoRAs for tiny models in every published key format, and the dense weights that they stand for."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]
RANK, ALPHA = 3, 2.0
UNET = "unet/diffusion_pytorch_model.safetensors"
FILES = {
    "unet": UNET,
    "text_encoder": "text_encoder/model.safetensors",
    "text_encoder_2": "text_encoder_2/model.safetensors",
}
ATTN = "down_blocks.{}.attentions.0.transformer_blocks.0"
MIDDLE = "mid_block.attentions.0.transformer_blocks.0"
TEXT = "encoder.layers.0"
LAYERS = {
    "sd1": [
        ("unet", f"{ATTN.format(0)}.attn1.to_q"),
        ("unet", f"{ATTN.format(0)}.attn2.to_k"),
        ("unet", f"{ATTN.format(0)}.attn2.to_v"),
        ("unet", f"{MIDDLE}.attn1.to_out.0"),
        ("unet", f"{MIDDLE}.ff.net.0.proj"),
        ("unet", "down_blocks.0.attentions.0.proj_in"),
        ("unet", "down_blocks.0.resnets.0.conv1"),
        ("unet", "up_blocks.0.upsamplers.0.conv"),
        ("text_encoder", f"{TEXT}.self_attn.q_proj"),
        ("text_encoder", f"{TEXT}.mlp.fc1"),
    ],
    "sdxl": [
        ("unet", f"{ATTN.format(2)}.attn1.to_q"),
        ("unet", "down_blocks.2.attentions.0.transformer_blocks.2.attn2.to_v"),
        ("unet", f"{MIDDLE}.attn2.to_k"),
        ("unet", f"{MIDDLE}.ff.net.2"),
        ("unet", "up_blocks.1.attentions.1.transformer_blocks.1.attn1.to_out.0"),
        ("unet", "down_blocks.1.resnets.0.time_emb_proj"),
        ("unet", "up_blocks.0.resnets.1.conv_shortcut"),
        ("unet", "down_blocks.0.downsamplers.0.conv"),
        ("unet", "add_embedding.linear_1"),
        ("text_encoder", f"{TEXT}.self_attn.q_proj"),
        ("text_encoder_2", f"{TEXT}.mlp.fc2"),
    ],
}
SGM = {
    # layers of the tiny SDXL in the names of SDXL's own code, counted by hand: one layer a block
    f"{ATTN.format(2)}.attn1.to_q": "input_blocks_5_1_transformer_blocks_0_attn1_to_q",
    "down_blocks.2.attentions.0.transformer_blocks.2.attn2.to_v": (
        "input_blocks_5_1_transformer_blocks_2_attn2_to_v"
    ),
    f"{MIDDLE}.attn2.to_k": "middle_block_1_transformer_blocks_0_attn2_to_k",
    f"{MIDDLE}.ff.net.2": "middle_block_1_transformer_blocks_0_ff_net_2",
    "up_blocks.1.attentions.1.transformer_blocks.1.attn1.to_out.0": (
        "output_blocks_3_1_transformer_blocks_1_attn1_to_out_0"
    ),
    "down_blocks.1.resnets.0.time_emb_proj": "input_blocks_3_0_emb_layers_1",
    "up_blocks.0.resnets.1.conv_shortcut": "output_blocks_1_0_skip_connection",
    "down_blocks.0.downsamplers.0.conv": "input_blocks_2_0_op",
    "add_embedding.linear_1": "label_emb_0_0",
}


def kohya(component: str, layer: str, half: str) -> str:
    prefix = {"unet": "lora_unet", "text_encoder": "lora_te", "text_encoder_2": "lora_te2"}[component]
    inner = "" if component == "unet" else "text_model_"
    return f"{prefix}_{inner}{layer.replace('.', '_')}.lora_{half}.weight"


def kohya_sgm(component: str, layer: str, half: str) -> str:
    if component == "unet":
        return f"lora_unet_{SGM[layer]}.lora_{half}.weight"
    return kohya(component, layer, half).replace("lora_te_", "lora_te1_")


def peft(component: str, layer: str, half: str) -> str:
    inner = "" if component == "unet" else "text_model."
    return f"{component}.{inner}{layer}.lora_{'A' if half == 'down' else 'B'}.weight"


def old_diffusers(component: str, layer: str, half: str) -> str:
    if component != "unet":
        return f"{component}.text_model.{layer}.lora_linear_layer.{half}.weight"
    owner, _, projection = layer.removesuffix(".0").rpartition(".")
    if projection in ("to_q", "to_k", "to_v", "to_out"):
        return f"unet.{owner}.processor.{projection}_lora.{half}.weight"
    return f"unet.{layer}.lora.{half}.weight"


def unet_alone(component: str, layer: str, half: str) -> str:
    return f"{layer}.lora.{half}.weight" if component == "unet" else peft(component, layer, half)


FORMATS: dict[str, Callable[[str, str, str], str]] = {
    "kohya": kohya,
    "kohya-sgm": kohya_sgm,
    "peft": peft,
    "old-diffusers": old_diffusers,
}


def weight_name(root: Path, component: str, layer: str) -> str:
    with safe_open(root / FILES[component], framework="pt") as file:
        names = set(file.keys())
    return next(name for name in (f"{layer}.weight", f"text_model.{layer}.weight") if name in names)


def halves(root: Path, component: str, layer: str, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random ``down`` and ``up`` of a layer, as a convolution where it is one."""
    weight = load_file(root / FILES[component])[weight_name(root, component, layer)]
    generator = torch.Generator().manual_seed(seed + len(layer))
    down = torch.randn(RANK, *weight.shape[1:], generator=generator) / weight[0].numel() ** 0.5
    up = torch.randn(weight.shape[0], RANK, *(1,) * (weight.dim() - 2), generator=generator)
    return down, up


def write_lora(
    path: Path,
    root: Path,
    family: str,
    name: Callable[[str, str, str], str],
    *,
    alpha: bool = True,
    **metadata: str,
) -> Path:
    tensors: Tensors = {}
    for component, layer in LAYERS[family]:
        down, up = halves(root, component, layer)
        tensors[name(component, layer, "down")] = down
        tensors[name(component, layer, "up")] = up
        if alpha:
            key = name(component, layer, "down").partition(".lora_")[0]
            tensors[f"{key}.alpha"] = torch.tensor(ALPHA)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata=metadata or None)
    return path


def densely(root: Path, target: Path, family: str, factor: float) -> Path:
    """Write the model with each layer's change added in float64: the oracle."""
    shutil.copytree(root, target)
    for component, file in FILES.items():
        if not (root / file).exists():
            continue
        tensors = load_file(root / file)
        for owner, layer in LAYERS[family]:
            if owner == component:
                down, up = halves(root, component, layer)
                change = up.double().flatten(1) @ down.double().flatten(1)
                key = weight_name(root, component, layer)
                tensors[key] = (tensors[key].double() + factor * change.view(tensors[key].shape)).float()
        save_file(tensors, target / file)
    return target
