"""The pipeline with its UNet and its VAE's decoder compiled by torch, in floating point or quantised to int8.

The UNet is exported with a dynamic batch and compiled once for all batches, with its weights frozen, as torch's pages
on inference on CPUs recommend. Called on diffusers' module itself, torch.compile breaks the graph of a UNet whose
adapter's scale may change, and is slower than no compiler.
Source: docs.pytorch.org/ao, "PyTorch 2 Export Quantization with X86 Backend through Inductor".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from loadtests.peers.pipelines.lowered import (
    CALIBRATION_IMAGES,
    CALIBRATION_STEPS,
    Inputs,
    LoweredPipeline,
    Run,
)

IN_FLOAT = ("conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2")
"""Layers of the UNet that stay as they are in int8: pictures are 5 to 7 of 255 levels off so, 7 to 10 without, for 5%
more time."""
WARM_BATCHES = (1, 2, 16)
"""One request, several, and those whose convolutions torch computes by another rule, from 16 rows on: it compiles a
graph for each kind. Without guidance, which no load of the comparison leaves out, the first request waits for one."""


class InductorPipeline(LoweredPipeline):
    """Generates portraits with diffusers' pipeline, compiled, of one to `max_batch` requests at once."""

    def __init__(
        self, model: Path, references: Path, *, dtype: str, max_batch: int, backend: str = "inductor"
    ) -> None:
        import torch._inductor.config as inductor

        int8 = dtype == "int8"
        super().__init__(model, references, dtype="float32" if int8 else dtype)
        trials = self.trials(CALIBRATION_IMAGES, CALIBRATION_STEPS if int8 else 1)
        calls, _ = self.record(
            trials[begin : begin + max_batch] for begin in range(0, CALIBRATION_IMAGES, max_batch)
        )
        with inductor.patch(freezing=True), torch.no_grad():
            unet = _exported(self.unet, calls[0], most_rows=2 * max_batch)
            if int8:
                unet = _quantized(unet, calls[::2])
            self.lower(
                _several_rows(torch.compile(unet, dynamic=True, backend=backend)),
                torch.compile(self.decoder, dynamic=True, backend=backend),
            )
            for batch in sorted({min(each, max_batch) for each in WARM_BATCHES}):
                self.generate(self.trials(batch, steps=1))


def _exported(module: torch.nn.Module, example: Inputs, *, most_rows: int) -> torch.nn.Module:
    rows = torch.export.Dim("rows", min=2, max=most_rows)
    batched: list[dict[int, Any]] = [{0: rows}, {}, {0: rows}, {0: rows}, {}]
    return torch.export.export(module, example, dynamic_shapes=tuple(batched)).module()


def _several_rows(run: Run) -> Run:
    """Return what gives a graph for several rows two of them where there is one, for a request without guidance."""

    def call(
        sample: torch.Tensor, step: torch.Tensor, text: torch.Tensor, image: torch.Tensor, scale: torch.Tensor
    ) -> torch.Tensor:
        if len(sample) > 1:
            return run(sample, step, text, image, scale)
        sample, text, image = (torch.cat([rows, rows]) for rows in (sample, text, image))
        return run(sample, step, text, image, scale)[:1]

    return call


def _quantized(exported: torch.nn.Module, calls: Sequence[Inputs]) -> torch.nn.Module:
    """Return an exported UNet with weights and activations in 8 bits, by what `calls` hold."""
    # In this side's environment alone.
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    for layer in IN_FLOAT:
        quantizer.set_module_name_qconfig(f"unet.{layer}", None)
    observed = prepare_pt2e(exported, quantizer)
    for call in calls:
        observed(*call)
    quantized: torch.nn.Module = convert_pt2e(observed)
    return quantized
