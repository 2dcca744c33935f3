"""Latents to pixels."""

from __future__ import annotations

from typing import Any

import torch

from engine.models.errors import UnsupportedModelError
from engine.models.layout import ModelLayout
from engine.models.weights import build_module, read_tensors


class LatentDecoder:
    """The VAE's decoder. Source: diffusers ``StableDiffusionPipeline.__call__`` and ``VaeImageProcessor``."""

    def __init__(self, vae: Any) -> None:
        self.vae = vae
        self.scaling_factor = float(vae.config.scaling_factor)
        self.latent_channels = int(vae.config.latent_channels)
        self.scale = 2 ** (len(vae.config.block_out_channels) - 1)
        """Pixels a latent cell."""

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode ``[N, C, h, w]`` f32, as the sampler left them, to ``[N, H, W, 3]`` uint8."""
        with torch.inference_mode():
            pixels = self.vae.decode((latents / self.scaling_factor).to(self.vae.dtype), return_dict=False)[0]
            return to_uint8(pixels)


def to_uint8(pixels: torch.Tensor) -> torch.Tensor:
    """Map ``[N, 3, H, W]`` in -1..1 to ``[N, H, W, 3]`` uint8, half to even as ``VaeImageProcessor``.

    Raises ``FloatingPointError`` for NaN or infinity, which half-precision decoders give for some latents and which
    uint8 cannot show.
    """
    if not torch.isfinite(torch.stack(pixels.aminmax())).all():
        raise FloatingPointError("the VAE gave values that are not finite")
    unit = (pixels * 0.5).add_(0.5).clamp_(0, 1).float()
    return unit.mul_(255).round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def load_decoder(layout: ModelLayout, *, dtype: torch.dtype) -> LatentDecoder:
    """Load ``vae/``, leaving out its encoder. Raises the ``ModelError`` family.

    SDXL's VAE overflows in float16: it is kept in float32 where its configuration says so (``force_upcast``), as in
    diffusers ``StableDiffusionXLPipeline``, and in no other pipeline.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    config = layout.config("vae")
    for name in ("latents_mean", "latents_std"):
        if config.get(name) is not None:
            raise UnsupportedModelError(
                f"vae setting {name} is not supported",
                path=layout.root / "vae" / "config.json",
                expected="None",
                found=repr(config[name]),
            )
    if dtype == torch.float16 and layout.is_sdxl and config.get("force_upcast", True):
        dtype = torch.float32
    files = layout.weights("vae", "diffusion_pytorch_model")
    tensors = read_tensors(files)
    with torch.device("meta"):
        template: Any = AutoencoderKL.from_config(config)
    # SD 1.5's own file has the attention keys of 2022.
    template._fix_state_dict_keys_on_load(tensors)  # noqa: SLF001
    vae: Any = build_module(lambda: AutoencoderKL.from_config(config), tensors, files[0], dtype=dtype)
    vae.encoder = None
    vae.quant_conv = None
    return LatentDecoder(vae)
