"""The same pipeline with its UNet, the IP-Adapter inside, and its VAE's decoder converted to OpenVINO.

As OpenVINO's own notebook of IP-Adapter does; the adapter's scale stays an input, so that a request may choose it.
Shapes are static, compiled when first met; the type is what OpenVINO picks for the CPU (bfloat16 where there is AMX),
the one that is asked for, or 8-bit integers after NNCF's quantisation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import openvino as ov
import torch

from loadtests.peers.pipelines.calibration import calibration_asks
from loadtests.peers.pipelines.lowered import Inputs, LoweredPipeline

HINTS = {"float32": "f32", "bfloat16": "bf16"}
Rewrite = Callable[[Any], Any]


class _Compiled:
    """A module converted, rewritten and compiled once for every set of input shapes that comes."""

    def __init__(
        self, module: torch.nn.Module, options: dict[str, Any], rewrite: Rewrite | None = None
    ) -> None:
        self._module = module
        self._options = options
        self._rewrite = rewrite
        self._core = ov.Core()
        self._requests: dict[tuple[tuple[int, ...], ...], Any] = {}

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        shapes = tuple(tuple(tensor.shape) for tensor in inputs)
        if shapes not in self._requests:
            with torch.no_grad():
                converted = ov.convert_model(self._module, example_input=inputs)
            converted.reshape(dict(zip(converted.inputs, map(list, shapes), strict=True)))
            if self._rewrite is not None:
                converted = self._rewrite(converted)
            self._requests[shapes] = self._core.compile_model(
                converted, "CPU", self._options
            ).create_infer_request()
        request = self._requests[shapes]
        outputs = request.infer([tensor.numpy() for tensor in inputs], share_inputs=True)
        return torch.from_numpy(outputs[0])


class OpenVinoPipeline(LoweredPipeline):
    """Generates portraits with diffusers' pipeline on OpenVINO. `precision` None leaves the type to OpenVINO.

    ``int8`` quantises weights and activations of UNet and decoder, as NNCF does by default for transformers: its preset
    for convolutional networks draws another picture (37 of 255 levels off). Without guidance the UNet stays as it is.
    """

    def __init__(self, model: Path, references: Path, *, threads: int, precision: str | None = None) -> None:
        super().__init__(model, references)
        options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
        if precision in HINTS:
            options["INFERENCE_PRECISION_HINT"] = HINTS[precision]
        rewrites: list[Rewrite | None] = [None, None]
        if precision == "int8":
            alone = [[ask] for ask in calibration_asks(self.people)]
            rewrites = [_quantization(calls) for calls in self.record(alone)]
        self.lower(
            *(
                _Compiled(module, options, rewrite)
                for module, rewrite in zip((self.unet, self.decoder), rewrites, strict=True)
            )
        )


def _quantization(calls: Sequence[Inputs]) -> Rewrite:
    """Return what quantises a model of the shapes of `calls`, by what they hold, and leaves others as they are."""
    # In this side's environment alone.
    import nncf

    samples = [[tensor.numpy() for tensor in call] for call in calls]
    shapes = [sample.shape for sample in samples[0]]

    def rewrite(converted: Any) -> Any:
        if [tuple(each.shape) for each in converted.inputs] != shapes:
            return converted
        return nncf.quantize(
            converted,
            nncf.Dataset(samples),
            subset_size=len(samples),
            model_type=nncf.ModelType.TRANSFORMER,
        )

    return rewrite
