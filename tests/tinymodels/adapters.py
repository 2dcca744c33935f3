"""Random IP-Adapters in h94's published key layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

ADAPTER_KINDS = ("base", "light", "plus", "plus-face", "full-face")


def write_adapter(
    path: Path,
    kind: str,
    *,
    layers: Sequence[int],
    token_width: int,
    pooled_width: int,
    hidden_width: int,
    seed: int = 1,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write an adapter for a UNet whose cross-attention layers have these widths, in ``attn_processors``' order."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}

    def linear(name: str, outputs: int, inputs: int, *, bias: bool = True) -> None:
        tensors[f"{name}.weight"] = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
        if bias:
            tensors[f"{name}.bias"] = 0.1 * torch.randn(outputs, generator=generator)

    def norm(name: str, width: int) -> None:
        tensors[f"{name}.weight"] = 1 + 0.1 * torch.randn(width, generator=generator)
        tensors[f"{name}.bias"] = 0.1 * torch.randn(width, generator=generator)

    if kind in ("base", "light"):
        linear("image_proj.proj", 4 * token_width, pooled_width)
        norm("image_proj.norm", token_width)
    elif kind == "full-face":
        linear("image_proj.proj.0", hidden_width, hidden_width)
        linear("image_proj.proj.2", token_width, hidden_width)
        norm("image_proj.proj.3", token_width)
    elif kind in ("plus", "plus-face"):
        width, inner, queries = 32, 64, 6
        tensors["image_proj.latents"] = torch.randn(1, queries, width, generator=generator) / width**0.5
        linear("image_proj.proj_in", width, hidden_width)
        linear("image_proj.proj_out", token_width, width)
        norm("image_proj.norm_out", token_width)
        for layer in range(4):
            attention, feed = f"image_proj.layers.{layer}.0", f"image_proj.layers.{layer}.1"
            norm(f"{attention}.norm1", width)
            norm(f"{attention}.norm2", width)
            linear(f"{attention}.to_q", inner, width, bias=False)
            linear(f"{attention}.to_kv", 2 * inner, width, bias=False)
            linear(f"{attention}.to_out", width, inner, bias=False)
            norm(f"{feed}.0", width)
            linear(f"{feed}.1", 4 * width, width, bias=False)
            linear(f"{feed}.3", width, 4 * width, bias=False)
    else:
        raise ValueError(f"no adapter kind {kind!r}; there are {', '.join(ADAPTER_KINDS)}")

    for index, width in enumerate(layers):
        for which in "kv":
            linear(f"ip_adapter.{2 * index + 1}.to_{which}_ip", width, token_width, bias=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}, path)
