"""A whole model, loaded: every part that a backend needs, and the facts that the server is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from engine.backends.base import AdapterFacts, ModelFacts
from engine.models.adapter import ImageAdapter, load_adapter
from engine.models.errors import CorruptFileError, ModelError, UnsupportedModelError
from engine.models.image_encoder import ImageEncoder, check_adapter, load_image_encoder
from engine.models.layout import ModelLayout
from engine.models.projection import KVProjector
from engine.models.prompt_encoder import PromptEncoder, load_prompt_encoder
from engine.models.unet import ConditionedUNet, load_unet
from engine.models.vae import LatentDecoder, load_decoder
from engine.models.weights import hash_files

PREDICTION_TYPES = ("epsilon", "v_prediction")


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The parts of a loaded model. ``image_encoder`` and ``adapter`` are None for a model without an adapter."""

    facts: ModelFacts
    unet: ConditionedUNet
    text_kv: KVProjector
    prompts: PromptEncoder
    decoder: LatentDecoder
    image_encoder: ImageEncoder | None
    adapter: ImageAdapter | None
    unconditional_tokens: dict[str, torch.Tensor]
    """By adapter, ``[tokens, E]`` f32: what the unconditional row of a request has for each of its references."""


def load_model(root: Path, *, adapter: str | None = None, dtype: torch.dtype = torch.float32) -> Model:
    """Load a directory in diffusers' layout, offline and from safetensors alone.

    ``adapter`` names a file in ``ip_adapter/`` (without suffix); a model with exactly one needs no name. Raises the
    ``ModelError`` family, each naming the file and, where it is one, the tensor.
    """
    layout = ModelLayout.open(root)
    try:
        return _load(layout, adapter, dtype)
    except (ModelError, MemoryError):
        raise
    except Exception as error:
        # A configuration with a wrong type or a missing entry fails somewhere inside diffusers or transformers, with
        # errors of every kind.
        raise CorruptFileError("a configuration cannot be used", path=root, found=repr(error)) from error


def _load(layout: ModelLayout, adapter_name: str | None, dtype: torch.dtype) -> Model:
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
    adapter_path = layout.adapter(adapter_name)
    unet, text_kv, config = load_unet(layout, dtype=dtype)
    prompts = load_prompt_encoder(layout, dtype=dtype)
    decoder = load_decoder(layout, dtype=dtype)
    width = int(config["cross_attention_dim"])
    if prompts.model.config.hidden_size != width:
        raise ModelError(
            "text encoder gives embeddings of another width than the UNet takes",
            path=root / "text_encoder" / "config.json",
            expected=str(width),
            found=str(prompts.model.config.hidden_size),
        )
    if decoder.latent_channels != config["in_channels"]:
        raise ModelError(
            "VAE has another number of latent channels than the UNet",
            path=root / "vae" / "config.json",
            expected=str(config["in_channels"]),
            found=str(decoder.latent_channels),
        )
    image_encoder = adapter = None
    unconditional: dict[str, torch.Tensor] = {}
    hashed = layout.weights("unet", "diffusion_pytorch_model")
    if adapter_path is not None:
        image_encoder = load_image_encoder(layout, dtype=dtype)
        adapter = load_adapter(adapter_path, unet, token_width=width, dtype=dtype)
        check_adapter(image_encoder, adapter)
        unconditional[adapter.name] = image_encoder.unconditional(adapter)
        hashed = [
            adapter_path,
            root / "image_encoder" / "config.json",
            root / "feature_extractor" / "preprocessor_config.json",
            *layout.weights("image_encoder", "model"),
        ]
    sample = config["sample_size"]
    height, wide = (sample, sample) if isinstance(sample, int) else sample
    stated = layout.defaults()
    weights_hash = hash_files(root, hashed)
    facts = ModelFacts(
        name=str(layout.index.get("_name_or_path") or root.resolve().name),
        family="sd1",
        weights_hash=weights_hash,
        adapters=()
        if adapter is None
        else (
            AdapterFacts(
                name=adapter.name,
                kind=adapter.kind,
                tokens=unconditional[adapter.name].shape[0],
                weights_hash=weights_hash,
            ),
        ),
        layer_names=tuple(layer.name for layer in unet.columns),
        prediction_type=prediction,
        latent_channels=decoder.latent_channels,
        latent_scale=decoder.scale,
        default_height=height * decoder.scale,
        default_width=wide * decoder.scale,
        size_multiple=decoder.scale * 2 ** (len(config["block_out_channels"]) - 1),
        min_size=decoder.scale * 2 ** (len(config["block_out_channels"]) - 1),
        max_size=2 * max(height, wide) * decoder.scale,
        prompt_tokens=prompts.tokens,
        reference_size=0 if image_encoder is None else image_encoder.preprocessing.size,
        token_width=width,
        preprocessing="" if image_encoder is None else image_encoder.preprocessing.version,
        scheduler_config=scheduler,
        default_steps=stated.steps,
        default_guidance_scale=stated.guidance_scale,
    )
    return Model(
        facts=facts,
        unet=unet,
        text_kv=text_kv,
        prompts=prompts,
        decoder=decoder,
        image_encoder=image_encoder,
        adapter=adapter,
        unconditional_tokens=unconditional,
    )
