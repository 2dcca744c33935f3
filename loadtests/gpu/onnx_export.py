"""The UNet's graph as ONNX, with the input names and axes that compiled backends expect."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn

OPSET = 20
"""20, not 23: its Attention operator crashes TensorRT-RTX's builder."""


def export_unet(
    unet: nn.Module,
    path: Path,
    *,
    latents: tuple[int, int, int],
    text_tokens: int,
    ip_tokens: int,
    width: int,
    pooled: int | None = None,
) -> Path:
    """Write ``unet.onnx`` for this latent shape (C, h, w), in the module's type, with rows and tokens dynamic.

    ``width`` is D, the columns of the packed K/V; ``pooled`` the width of SDXL's ``text_embeds``, with which the
    graph takes ``text_embeds`` and ``time_ids`` too.
    """
    like = next(unet.parameters())
    rows = 2

    def random(*shape: int, dtype: torch.dtype = like.dtype) -> torch.Tensor:
        return torch.randn(*shape, device=like.device, dtype=dtype)

    timestep = torch.full((rows,), 500.0, device=like.device)
    kv_text, kv_ip = random(rows, text_tokens, width), random(rows, ip_tokens, width)
    inputs: list[torch.Tensor] = [
        random(rows, *latents),
        timestep,
        kv_text,
        kv_ip,
        random(rows, ip_tokens) * 0,
    ]
    names = ["sample", "timestep", "kv_text", "kv_ip", "ip_mask"]
    axes = {
        "sample": {0: "rows"},
        "timestep": {0: "rows"},
        "kv_text": {0: "rows", 1: "text_tokens"},
        "kv_ip": {0: "rows", 1: "ip_tokens"},
        "ip_mask": {0: "rows", 1: "ip_tokens"},
        "noise": {0: "rows"},
    }
    if pooled is not None:
        inputs += [random(rows, pooled), random(rows, 6)]
        names += ["text_embeds", "time_ids"]
        axes |= {"text_embeds": {0: "rows"}, "time_ids": {0: "rows"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        # The tracer warns of every Python branch on a shape; all of them are fixed for a UNet of one size.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            unet.eval(),
            tuple(inputs),
            str(path),
            input_names=names,
            output_names=["noise"],
            dynamic_axes=axes,
            opset_version=OPSET,
            # The tracing exporter: seconds where the other takes a minute, and the same graph for TensorRT.
            dynamo=False,
            verbose=False,
        )
    return path
