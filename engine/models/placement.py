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
    for encoder in model.prompts.models:
        encoder.to(device)
    model.decoder.vae.to(device)
    _move_projector(model.text_kv, device)
    if unet:
        _share_text_weights(model)
    adapters = {}
    for name, adapter in model.adapters.items():
        adapter.encoder.model.to(device)
        adapter.adapter.projection.to(device)
        _move_projector(adapter.kv, device)
        adapters[name] = replace(adapter, unconditional_tokens=adapter.unconditional_tokens.to(device))
    return replace(model, adapters=adapters)


def _move_projector(projector: KVProjector, device: torch.device) -> None:
    projector.weight = projector.weight.to(device)


def _share_text_weights(model: Model) -> None:
    # As load_unet leaves them: the UNet's own text projections are views of the projector's weight, not copies.
    for layer in model.unet.columns:
        attention = model.unet.unet.get_submodule(layer.name)
        middle = layer.start + layer.width
        attention.to_k.weight.data = model.text_kv.weight[layer.start : middle]  # type: ignore[union-attr]
        attention.to_v.weight.data = model.text_kv.weight[middle : layer.end]  # type: ignore[union-attr]
