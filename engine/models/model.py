"""A whole model, loaded: every part that a backend needs, and the facts that the server is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.backends.base import ModelFacts
from engine.models.adapter import ImageAdapter
from engine.models.errors import CorruptFileError, ModelError, UnsupportedModelError
from engine.models.facts import model_facts
from engine.models.image_encoder import ImageEncoder
from engine.models.layout import ModelLayout
from engine.models.loaded_adapter import LoadedAdapter, load_adapters
from engine.models.lora import LoraSet
from engine.models.lora_choice import LoraChoice
from engine.models.projection import KVProjector
from engine.models.prompt_encoder import PromptEncoder, XLPromptEncoder, load_prompt_encoder
from engine.models.unet import ConditionedUNet, load_unet
from engine.models.vae import LatentDecoder, load_decoder

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
    def unconditional_tokens(self) -> dict[str, torch.Tensor]:
        """By adapter, ``[tokens, E]`` f32: what the unconditional row of a request has for each of its references."""
        return {name: adapter.unconditional_tokens for name, adapter in self.adapters.items()}

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
    facts = model_facts(layout, config, scheduler, unet, prompts, decoder, adapters, loras)
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
