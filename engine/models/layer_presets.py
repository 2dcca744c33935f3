"""Which cross-attention layers a reference acts on: presets by model family, as factors for each layer.

Sources. SDXL: InstantStyle (arXiv 2404.02733; github.com/InstantStyle/InstantStyle) found the block that carries style
and the one that carries layout; diffusers documents both for ``set_ip_adapter_scale`` with a dict
(docs/source/en/using-diffusers/ip_adapter.md). SD 1.5: no paper has a block for each; the mapping is that of
github.com/cubiq/ComfyUI_IPAdapter_plus (IPAdapterPlus.py, ``weight_type`` "style transfer" and "composition"), whose
layer numbers are those of the adapter's file: 4 and 5 are ``down_blocks.2``, 6 to 8 ``up_blocks.1``, 15 ``mid_block``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

ALL = "all"
STYLE, LAYOUT, STYLE_AND_LAYOUT = "style", "layout", "style+layout"
PRESETS = (ALL, STYLE, LAYOUT, STYLE_AND_LAYOUT)

Factors = Mapping[str, float]
"""Module paths of blocks, and the factor of all layers within; layers elsewhere have none of the reference."""

_SDXL: Mapping[str, Factors] = {
    STYLE: {"up_blocks.0.attentions.1": 1.0},
    LAYOUT: {"down_blocks.2.attentions.1": 1.0},
}
_SD15: Mapping[str, Factors] = {
    STYLE: {
        "down_blocks.0": 1.0,
        "down_blocks.1": 1.0,
        "up_blocks.2": 1.0,
        "up_blocks.3": 1.0,
        "mid_block": 1.0,
    },
    LAYOUT: {"down_blocks.2.attentions.0": 0.25, "down_blocks.2.attentions.1": 1.0},
}
_FAMILIES: Mapping[str, tuple[int, Mapping[str, Factors]]] = {"sd1": (16, _SD15), "sdxl": (11, _SDXL)}
"""By family: the transformers (``...attentions.N``) of the architecture that the presets were found on, and the
presets. A slimmed UNet of the same family has other blocks under the same names."""


class LayerPresetError(ValueError):
    """The model has no such preset; ``known`` are those that it has."""

    def __init__(self, preset: str, family: str, known: Sequence[str]) -> None:
        super().__init__(
            f"no reference layers {preset!r} are known for this model (family {family}); "
            f"it takes {', '.join(known)}"
        )
        self.known = tuple(known)


def layer_factors(preset: str, family: str, layer_names: Sequence[str]) -> tuple[float, ...]:
    """Return the factor of each cross-attention layer, in the order of the names (``ModelFacts.layer_names``).

    Raises ``LayerPresetError`` for a family, or a UNet of it, for which nobody has found the layers.
    """
    if preset == ALL:
        return (1.0,) * len(layer_names)
    known = known_presets(family, layer_names)
    if preset not in known:
        raise LayerPresetError(preset, family, known)
    presets = _FAMILIES[family][1]
    wanted = (STYLE, LAYOUT) if preset == STYLE_AND_LAYOUT else (preset,)
    # Style and layout name different layers, so their sum is their union.
    return tuple(sum(_factor(presets[part], name) for part in wanted) for name in layer_names)


def known_presets(family: str, layer_names: Sequence[str]) -> tuple[str, ...]:
    """Return the presets that this model takes; every model takes ``all``."""
    transformers, presets = _FAMILIES.get(family, (0, {}))
    blocks = [block for factors in presets.values() for block in factors]
    found = {name.partition(".transformer_blocks.")[0] for name in layer_names}
    whole = len(found) == transformers and all(
        any(name.startswith(f"{block}.") for name in layer_names) for block in blocks
    )
    return PRESETS if whole else (ALL,)


def _factor(factors: Factors, layer: str) -> float:
    return next((factor for block, factor in factors.items() if layer.startswith(f"{block}.")), 0.0)
