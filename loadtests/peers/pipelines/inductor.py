"""The pipeline with its UNet and its VAE's decoder compiled by torch, the UNet in floating point or quantised to int8.

The UNet is exported with a dynamic batch and compiled with its weights frozen, as torch's pages on inference on CPUs
recommend. Called on diffusers' module itself, torch.compile breaks the graph of a UNet whose adapter's scale may
change, and is slower than no compiler.
Source: docs.pytorch.org/ao, "PyTorch 2 Export Quantization with X86 Backend through Inductor".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from loadtests.peers.pipelines.calibration import IMAGES, STEPS, calibration_asks
from loadtests.peers.pipelines.lowered import Inputs, LoweredPipeline, Run

IN_FLOAT = ("conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2")
"""Layers of the UNet that stay as they are in int8: those where pictures lose most for least time (docs/peers.md)."""
WARM_BATCHES = (1, 2, 16)
"""One request, several, and those whose convolutions torch computes by another rule, from 16 rows on: it compiles a
graph for each kind. Without guidance, which no load of the comparison leaves out, the first request waits for one."""


class InductorPipeline(LoweredPipeline):
    """Generates portraits with diffusers' pipeline, compiled, of one to `max_batch` requests at once."""

    def __init__(
        self, model: Path, references: Path, *, dtype: str, max_batch: int, backend: str = "inductor"
    ) -> None:
        int8 = dtype == "int8"
        super().__init__(model, references, dtype="float32" if int8 else dtype)
        if backend == "inductor":
            import torch._inductor.config as inductor

            inductor.freezing = True  # for the process: read whenever a graph is compiled
        asks = calibration_asks(self.people, IMAGES, STEPS if int8 else 1)
        calls, _ = self.record(asks[begin : begin + max_batch] for begin in range(0, IMAGES, max_batch))
        with torch.no_grad():
            unet = _exported(self.unet, calls[0], most=2 * max_batch)
            if int8:
                unet = _quantized(unet, calls[::2])  # what observes takes longer than what it observes
            run_unet, run_decoder = (
                torch.compile(module, dynamic=True, backend=backend) for module in (unet, self.decoder)
            )
            self.lower(_several_rows(run_unet), run_decoder)
            for batch in sorted({min(each, max_batch) for each in WARM_BATCHES}):
                self.generate(calibration_asks(self.people, batch, steps=1))


def _exported(module: torch.nn.Module, example: Inputs, *, most: int) -> torch.nn.Module:
    """Return a module whose inputs, but for vectors and scalars, have 2 to `most` rows, as `example` has several."""
    rows = torch.export.Dim("rows", min=2, max=most)
    batched: list[dict[int, Any]] = [{0: rows} if each.ndim > 1 else {} for each in example]
    return torch.export.export(module, example, dynamic_shapes=tuple(batched)).module()


def _several_rows(run: Run) -> Run:
    """Return `run`, which takes two rows or more, for any number of them: one row goes in twice."""

    def call(*inputs: torch.Tensor) -> torch.Tensor:
        if len(inputs[0]) > 1:
            return run(*inputs)
        return run(*(torch.cat([each, each]) if each.ndim > 1 else each for each in inputs))[:1]

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
