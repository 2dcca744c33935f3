"""A whole model, loaded: every part that a backend needs, and the facts that the server is told."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.backends.base import ModelFacts
from engine.models.adapter import ImageAdapter
from engine.models.errors import CorruptFileError, ModelError, UnsupportedModelError
from engine.models.image_encoder import ImageEncoder
from engine.models.layout import ModelLayout
from engine.models.loaded_adapter import LoadedAdapter, load_adapters
from engine.models.lora import LoraSet
from engine.models.lora_choice import LoraChoice
from engine.models.projection import KVProjector
from engine.models.prompt_encoder import PromptEncoder, XLPromptEncoder, load_prompt_encoder
from engine.models.unet import ConditionedUNet, load_unet
from engine.models.vae import LatentDecoder, load_decoder
from engine.models.weights import hash_files

PREDICTION_TYPES = ("epsilon", "v_prediction")


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The parts of a loaded model. ``adapters`` are by name, the default one first; empty for a model without any."""

    facts: ModelFacts
    unet: ConditionedUNet
    text_kv: KVProjector
    prompts: PromptEncoder | XLPromptEncoder
    decoder: LatentDecoder
    adapters: dict[str, LoadedAdapter]

    @property
    def adapter(self) -> ImageAdapter | None:
        """The default adapter."""
        default = self._default
        return None if default is None else default.adapter

    @property
    def image_encoder(self) -> ImageEncoder | None:
        """The default adapter's image encoder."""
        default = self._default
        return None if default is None else default.encoder

    @property
    def unconditional_tokens(self) -> torch.Tensor | None:
        """``[tokens, E]`` f32: the default adapter's tokens of the unconditional row of a request with a reference."""
        default = self._default
        return None if default is None else default.unconditional_tokens

    @property
    def _default(self) -> LoadedAdapter | None:
        return next(iter(self.adapters.values()), None)


def load_model(
    root: Path,
    *,
    adapter: str | None = None,
    dtype: torch.dtype = torch.float32,
    loras: Sequence[LoraChoice] = (),
) -> Model:
    """Load a directory in diffusers' layout, offline and from safetensors alone.

    ``adapter`` names the default of the files in ``ip_adapter/`` (without suffix), all of which are loaded; a model
    with exactly one needs no name. ``loras`` are fused into the weights, after those in the directory's ``lora/``.
    Raises the ``ModelError`` family, each naming the file and, where it is one, the tensor.
    """
    layout = ModelLayout.open(root)
    try:
        return _load(layout, adapter, dtype, loras)
    except (ModelError, MemoryError):
        raise
    except Exception as error:
        # A configuration with a wrong type or a missing entry fails somewhere inside diffusers or transformers, with
        # errors of every kind.
        raise CorruptFileError("a configuration cannot be used", path=root, found=repr(error)) from error


def _load(
    layout: ModelLayout, adapter_name: str | None, dtype: torch.dtype, choices: Sequence[LoraChoice]
) -> Model:
    root = layout.root
    scheduler = layout.config("scheduler", "scheduler_config.json")
    prediction = scheduler.get("prediction_type", "epsilon")
    if prediction not in PREDICTION_TYPES:
        raise UnsupportedModelError(
            "prediction type is not supported",
            path=root / "scheduler" / "scheduler_config.json",
            expected=" or ".join(PREDICTION_TYPES),
            found=repr(prediction),
        )
    default = layout.default_adapter(adapter_name)
    loras = LoraSet.read([*(LoraChoice(path=path) for path in layout.loras()), *choices])
    unet, text_kv, config = load_unet(layout, dtype=dtype, loras=loras)
    prompts = load_prompt_encoder(layout, dtype=dtype, loras=loras)
    loras.check_all_used()
    decoder = load_decoder(layout, dtype=dtype)
    _check_widths(layout, unet, prompts, decoder, config)
    width = int(config["cross_attention_dim"])
    adapters = load_adapters(layout, unet, default, token_width=width, dtype=dtype)
    facts = _facts(layout, config, scheduler, unet, prompts, decoder, adapters, loras)
    return Model(facts=facts, unet=unet, text_kv=text_kv, prompts=prompts, decoder=decoder, adapters=adapters)


def _check_widths(
    layout: ModelLayout,
    unet: ConditionedUNet,
    prompts: PromptEncoder | XLPromptEncoder,
    decoder: LatentDecoder,
    config: dict[str, Any],
) -> None:
    checks = (
        (
            "text_encoder",
            "text encoders give embeddings of another width than the UNet takes",
            int(config["cross_attention_dim"]),
            prompts.width,
        ),
        (
            "text_encoder_2",
            "text encoder gives pooled embeddings of another width than the UNet takes",
            unet.added.text_embeds,
            prompts.pooled_width,
        ),
        (
            "vae",
            "VAE has another number of latent channels than the UNet",
            config["in_channels"],
            decoder.latent_channels,
        ),
    )
    for folder, what, expected, found in checks:
        if expected != found:
            path = layout.root / folder / "config.json"
            raise ModelError(what, path=path, expected=str(expected), found=str(found))


def _facts(
    layout: ModelLayout,
    config: dict[str, Any],
    scheduler: dict[str, Any],
    unet: ConditionedUNet,
    prompts: PromptEncoder | XLPromptEncoder,
    decoder: LatentDecoder,
    adapters: dict[str, LoadedAdapter],
    loras: LoraSet,
) -> ModelFacts:
    sample = config["sample_size"]
    height, wide = (sample, sample) if isinstance(sample, int) else sample
    multiple = decoder.scale * 2 ** (len(config["block_out_channels"]) - 1)
    stated = layout.defaults()
    first = next(iter(adapters.values()), None)
    return ModelFacts(
        name=str(layout.index.get("_name_or_path") or layout.root.resolve().name),
        family=_family(layout, config),
        weights_hash=_weights_hash(layout, adapters, loras),
        adapters=tuple(adapters),
        prediction_type=scheduler.get("prediction_type", "epsilon"),
        latent_channels=decoder.latent_channels,
        latent_scale=decoder.scale,
        default_height=height * decoder.scale,
        default_width=wide * decoder.scale,
        size_multiple=multiple,
        min_size=multiple,
        max_size=2 * max(height, wide) * decoder.scale,
        prompt_tokens=prompts.tokens,
        reference_size=0 if first is None else first.encoder.preprocessing.size,
        reference_tokens=0 if first is None else first.tokens,
        token_width=int(config["cross_attention_dim"]),
        preprocessing="" if first is None else first.encoder.preprocessing.version,
        scheduler_config=scheduler,
        default_steps=stated.steps,
        default_guidance_scale=stated.guidance_scale,
        guidance_embedded=unet.added.timestep_cond > 0,
        zero_empty_negative=layout.is_sdxl and bool(layout.index.get("force_zeros_for_empty_prompt", True)),
    )


def _family(layout: ModelLayout, config: dict[str, Any]) -> str:
    if layout.is_sdxl:
        return "sdxl"
    # The models of the 2.x line project with linear layers, those of the 1.x line with 1x1 convolutions.
    return "sd2" if config.get("use_linear_projection") else "sd1"


def _weights_hash(layout: ModelLayout, adapters: dict[str, LoadedAdapter], loras: LoraSet) -> str:
    """Hash what decides a reference's tokens, or for a model without an adapter its UNet; LoRAs count, with scale."""
    files = {path for adapter in adapters.values() for path in adapter.files}
    found = hash_files(layout.root, sorted(files or layout.weights("unet", "diffusion_pytorch_model")))
    if not loras.identity:
        return found
    return hashlib.sha256(f"{found}\n{loras.identity}".encode()).hexdigest()
