"""What the server is told of a loaded model."""

from __future__ import annotations

import hashlib
from typing import Any

from engine.backends.base import AdapterFacts, ModelFacts
from engine.models.layout import ModelLayout
from engine.models.loaded_adapter import LoadedAdapter
from engine.models.lora import LoraSet
from engine.models.prompt_encoder import PromptEncoder, XLPromptEncoder
from engine.models.unet import ConditionedUNet
from engine.models.vae import LatentDecoder
from engine.models.weights import hash_files


def model_facts(
    layout: ModelLayout,
    config: dict[str, Any],
    scheduler: dict[str, Any],
    unet: ConditionedUNet,
    prompts: PromptEncoder | XLPromptEncoder,
    decoder: LatentDecoder,
    adapters: dict[str, LoadedAdapter],
    loras: LoraSet,
) -> ModelFacts:
    """State the facts of a model from its parts; ``config`` is the UNet's and ``scheduler`` the scheduler's."""
    sample = config["sample_size"]
    height, wide = (sample, sample) if isinstance(sample, int) else sample
    multiple = decoder.scale * 2 ** (len(config["block_out_channels"]) - 1)
    stated = layout.defaults()
    first = next(iter(adapters.values()), None)
    return ModelFacts(
        name=str(layout.index.get("_name_or_path") or layout.root.resolve().name),
        family=_family(layout, config),
        weights_hash=_weights_hash(layout, adapters, loras),
        adapters=tuple(
            AdapterFacts(
                name=adapter.name,
                kind=adapter.kind,
                tokens=adapter.tokens,
                weights_hash=adapter.weights_hash,
            )
            for adapter in adapters.values()
        ),
        layer_names=tuple(layer.name for layer in unet.columns),
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
    if not adapters:
        parts = [hash_files(layout.root, layout.weights("unet", "diffusion_pytorch_model"))]
    else:
        # In this order: tokens are cached under the hash, and are those of the first adapter unless one is named.
        parts = [adapter.weights_hash for adapter in adapters.values()]
    if loras.identity:
        parts.append(loras.identity)
    return parts[0] if len(parts) == 1 else hashlib.sha256("\n".join(parts).encode()).hexdigest()
