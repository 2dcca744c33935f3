"""Moving a loaded model to the device that computes."""

from __future__ import annotations

from dataclasses import replace

import torch

from engine.models.model import Model
from engine.models.projection import KVProjector


def move_model(model: Model, device: torch.device, *, unet: bool = True) -> Model:
    """Move a model's modules and projectors to a device, in place, and return the model there.

    ``unet=False`` leaves the UNet where it is, for backends that run it compiled: on the device its weights would only
    take memory. ``unconditional_tokens`` go along, since they enter the device's projections.
    """
    if unet:
        model.unet.to(device)
    model.prompts.model.to(device)
    model.decoder.vae.to(device)
    _move_projector(model.text_kv, device)
    if unet:
        _share_text_weights(model)
    if model.image_encoder is not None:
        model.image_encoder.model.to(device)
    if model.adapter is not None:
        model.adapter.projection.to(device)
        _move_projector(model.adapter.kv, device)
    tokens = model.unconditional_tokens
    return replace(model, unconditional_tokens=None if tokens is None else tokens.to(device))


def _move_projector(projector: KVProjector, device: torch.device) -> None:
    projector.weight = projector.weight.to(device)


def _share_text_weights(model: Model) -> None:
    # As load_unet leaves them: the UNet's own text projections are views of the projector's weight, not copies.
    for layer in model.unet.columns:
        attention = model.unet.unet.get_submodule(layer.name)
        middle = layer.start + layer.width
        attention.to_k.weight.data = model.text_kv.weight[layer.start : middle]  # type: ignore[union-attr]
        attention.to_v.weight.data = model.text_kv.weight[middle : layer.end]  # type: ignore[union-attr]
