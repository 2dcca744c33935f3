"""Which graphs a model has, each with example inputs for tracing."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from engine.export.manifest import REGIONAL, region_input
from engine.export.modules import (
    DecoderGraph,
    ImageGraph,
    KVGraph,
    RegionalUNetGraph,
    TextGraph,
    UNetGraph,
    XLTextGraph,
)
from engine.export.trace import GraphSource
from engine.models.loaded_adapter import LoadedAdapter
from engine.models.model import Model
from engine.models.prompt_encoder import XLPromptEncoder
from engine.models.regions import WHOLE, level_masks

ROWS = 2
"""Rows of the example inputs: not 1, which the tracer would take for an axis to broadcast."""


def graph_sources(model: Model, size: tuple[int, int] | None) -> Iterator[GraphSource]:
    """Yield the graphs of a model one by one; ``size`` in pixels makes height and width of the UNet static."""
    facts = model.facts
    dtype = model.text_kv.weight.dtype
    # Tracing computes: dynamic sizes are traced at the smallest at which no axis of the UNet is 1.
    height, width = (pixels // facts.latent_scale for pixels in size or (2 * facts.size_multiple,) * 2)
    yield _unet(model, height, width, static=size is not None)
    if model.adapters:
        yield _regional_unet(model, height, width, static=size is not None)
    vae = model.decoder.vae
    yield GraphSource(
        name="vae_decoder",
        module=DecoderGraph(vae),
        inputs={"latents": torch.zeros(ROWS, facts.latent_channels, height, width, dtype=vae.dtype)},
        outputs=("pixels",),
        axes={"latents": {0: "N", 2: "h", 3: "w"}, "pixels": {0: "N", 2: "H", 3: "W"}},
    )
    yield from _text(model)
    yield GraphSource(
        name="text_kv",
        module=KVGraph(model.text_kv),
        inputs={"embedding": torch.zeros(ROWS, model.prompts.tokens, facts.token_width, dtype=dtype)},
        outputs=("kv",),
        axes={"embedding": {0: "N", 1: "T"}, "kv": {0: "N", 1: "T"}},
    )
    encoders = image_graphs(model)
    seen: set[str] = set()
    for adapter in model.adapters.values():
        name = encoders[adapter.name]
        if name not in seen:
            seen.add(name)
            yield _image(name, adapter)
        yield from _adapter(adapter, facts.token_width, dtype)


def image_graphs(model: Model) -> dict[str, str]:
    """Return the name of the graph of each adapter's image encoder; adapters may share one."""
    names: dict[int, str] = {}
    for adapter in model.adapters.values():
        number = len(names) + 1
        names.setdefault(id(adapter.encoder), "image_encoder" if number == 1 else f"image_encoder_{number}")
    return {adapter.name: names[id(adapter.encoder)] for adapter in model.adapters.values()}


def _text(model: Model) -> Iterator[GraphSource]:
    prompts = model.prompts
    for number, encoder in enumerate(prompts.models):
        pooled = isinstance(prompts, XLPromptEncoder) and number == 1
        wide = isinstance(prompts, XLPromptEncoder)
        yield GraphSource(
            name="text_encoder" if number == 0 else "text_encoder_2",
            module=XLTextGraph(encoder, pooled=pooled) if wide else TextGraph(encoder),
            inputs={"input_ids": torch.zeros(ROWS, prompts.tokens, dtype=torch.int64)},
            outputs=("hidden", "pooled") if pooled else ("hidden",),
            axes={
                "input_ids": {0: "N"},
                "hidden": {0: "N"},
                **({"pooled": {0: "N"}} if pooled else {}),
            },
        )


def _image(name: str, adapter: LoadedAdapter) -> GraphSource:
    encoder = adapter.encoder
    side = encoder.preprocessing.size
    return GraphSource(
        name=name,
        module=ImageGraph(encoder.model),
        inputs={"pixels": torch.zeros(ROWS, 3, side, side, dtype=encoder.model.dtype)},
        outputs=("image_embeds", "hidden"),
        axes={"pixels": {0: "N"}, "image_embeds": {0: "N"}, "hidden": {0: "N"}},
    )


def _adapter(adapter: LoadedAdapter, token_width: int, dtype: torch.dtype) -> Iterator[GraphSource]:
    encoder = adapter.encoder
    features = torch.zeros(ROWS, encoder.width(adapter.adapter), dtype=dtype)
    if adapter.adapter.takes_hidden_states:
        patches = (encoder.preprocessing.size // encoder.model.config.patch_size) ** 2 + 1
        features = features.unsqueeze(1).repeat(1, patches, 1)
    yield GraphSource(
        name=f"adapters/{adapter.name}",
        module=adapter.adapter.projection,
        inputs={"features": features},
        outputs=("tokens",),
        axes={"features": {0: "N"}, "tokens": {0: "N"}},
    )
    yield GraphSource(
        name=f"adapters/{adapter.name}_kv",
        module=KVGraph(adapter.kv),
        inputs={"tokens": torch.zeros(ROWS, 4, token_width, dtype=dtype)},
        outputs=("kv",),
        axes={"tokens": {0: "N", 1: "t"}, "kv": {0: "N", 1: "t"}},
    )


def _unet(model: Model, height: int, width: int, *, static: bool) -> GraphSource:
    """Return the UNet; its inputs are ``ConditionedUNet.forward``'s, in that order, the mask among them."""
    facts = model.facts
    dtype = model.text_kv.weight.dtype
    columns = model.unet.width
    tokens = max(2, facts.reference_tokens)
    size = {} if static else {2: "h", 3: "w"}
    added = model.unet.added.widths()
    return GraphSource(
        name="unet",
        module=UNetGraph(model.unet, tuple(added)),
        inputs={
            "sample": torch.zeros(ROWS, facts.latent_channels, height, width, dtype=dtype),
            "timestep": torch.full((ROWS,), 500.0),
            "kv_text": torch.zeros(ROWS, facts.prompt_tokens, columns, dtype=dtype),
            "kv_ip": torch.zeros(ROWS, tokens, columns, dtype=dtype),
            "ip_mask": torch.zeros(ROWS, tokens, dtype=dtype),
            # Sizes in pixels are beyond what half types tell apart, and guidance is embedded in float32.
            **{name: torch.zeros(ROWS, wide) for name, wide in added.items()},
        },
        outputs=("noise",),
        axes={
            "sample": {0: "B", **size},
            "timestep": {0: "B"},
            "kv_text": {0: "B", 1: "T"},
            "kv_ip": {0: "B", 1: "Tip"},
            "ip_mask": {0: "B", 1: "Tip"},
            **{name: {0: "B"} for name in added},
            "noise": {0: "B", **size},
        },
    )


def _regional_unet(model: Model, height: int, width: int, *, static: bool) -> GraphSource:
    """Return the UNet with regions, on the weights of the other."""
    plain = _unet(model, height, width, static=static)
    inputs, axes = dict(plain.inputs), dict(plain.axes)
    for name in ("ip_mask", "kv_ip"):
        del inputs[name], axes[name]
    added = {name: inputs.pop(name) for name in model.unet.added.widths()}
    tokens = max(2, model.facts.reference_tokens)
    kv_text = inputs["kv_text"]
    scale = model.facts.latent_scale
    masks = level_masks([WHOLE] * 3, (height * scale, width * scale), scale, model.unet.levels)
    regions = {
        region_input(level): mask.to(kv_text.dtype).expand(ROWS, -1, -1) for level, mask in masks.items()
    }
    return GraphSource(
        name=REGIONAL,
        module=RegionalUNetGraph(model.unet, tuple(added)),
        inputs={**inputs, "kv_ip": kv_text.new_zeros(ROWS, 3, tokens, kv_text.shape[2]), **added, **regions},
        outputs=plain.outputs,
        axes={
            **axes,
            "kv_ip": {0: "B", 1: "R", 2: "Tip"},
            # The pixels of a level follow from height and width, which ONNX cannot say.
            **{name: {0: "B", 1: "R", **({} if static else {2: f"pixels_{name}"})} for name in regions},
        },
        weights_of=plain.name,
    )
