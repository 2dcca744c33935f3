"""The same pipeline with its UNet, the IP-Adapter inside, and its VAE's decoder converted to OpenVINO.

As OpenVINO's own notebook of IP-Adapter does; the adapter's scale stays an input, so that a request may choose it.
Shapes are static, compiled when first met; the type is what OpenVINO picks for the CPU (bfloat16 where there is AMX)
or the one that is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openvino as ov
import torch

from loadtests.peers.pipeline import PeerPipeline


class _AdaptedUnet(torch.nn.Module):
    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        text: torch.Tensor,
        image: torch.Tensor,
        scale: torch.Tensor,
    ) -> torch.Tensor:
        for processor in self.unet.attn_processors.values():
            if hasattr(processor, "scale"):
                processor.scale = [scale]
        # The class's own: the instance's is replaced by what this becomes.
        noise: torch.Tensor = type(self.unet).forward(
            self.unet,
            sample,
            timestep,
            encoder_hidden_states=text,
            added_cond_kwargs={"image_embeds": [image]},
            return_dict=False,
        )[0]
        return noise


class _Decoder(torch.nn.Module):
    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        picture: torch.Tensor = type(self.vae).decode(self.vae, latents, return_dict=False)[0]
        return picture


class _Compiled:
    """A module converted and compiled once for every set of input shapes that comes."""

    def __init__(self, module: torch.nn.Module, options: dict[str, Any]) -> None:
        self._module = module.eval()
        self._options = options
        self._core = ov.Core()
        self._requests: dict[tuple[tuple[int, ...], ...], Any] = {}

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        shapes = tuple(tuple(tensor.shape) for tensor in inputs)
        if shapes not in self._requests:
            with torch.no_grad():
                converted = ov.convert_model(self._module, example_input=inputs)
            converted.reshape(dict(zip(converted.inputs, map(list, shapes), strict=True)))
            self._requests[shapes] = self._core.compile_model(
                converted, "CPU", self._options
            ).create_infer_request()
        request = self._requests[shapes]
        outputs = request.infer([tensor.numpy() for tensor in inputs], share_inputs=True)
        return torch.from_numpy(outputs[0])


class OpenVinoPipeline(PeerPipeline):
    """Generates portraits with diffusers' pipeline on OpenVINO. `precision` None leaves the type to OpenVINO."""

    def __init__(self, model: Path, references: Path, *, threads: int, precision: str | None = None) -> None:
        super().__init__(model, references, dtype="float32")
        options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
        if precision is not None:
            options["INFERENCE_PRECISION_HINT"] = {"float32": "f32", "bfloat16": "bf16"}[precision]
        self._scale = torch.ones(())
        unet, vae = self.pipe.unet, self.pipe.vae
        run_unet = _Compiled(_AdaptedUnet(unet), options)
        run_decoder = _Compiled(_Decoder(vae), options)

        def forward(
            sample: torch.Tensor,
            timestep: torch.Tensor,
            encoder_hidden_states: torch.Tensor,
            *,
            added_cond_kwargs: dict[str, list[torch.Tensor]],
            **_: Any,
        ) -> tuple[torch.Tensor]:
            (image,) = added_cond_kwargs["image_embeds"]
            step = timestep.reshape(1).float()
            return (run_unet(sample, step, encoder_hidden_states, image, self._scale),)

        def decode(latents: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
            return (run_decoder(latents),)

        unet.forward = forward
        vae.decode = decode

    def set_scale(self, scale: float) -> None:
        """Set the input that the next calls of the converted UNet get."""
        self._scale = torch.tensor(scale)
