"""Layer presets name the layers that InstantStyle and ComfyUI's nodes name, in diffusers' own order."""

from __future__ import annotations

from typing import Any

import pytest

from engine.models.attention import pack_layers
from engine.models.layer_presets import PRESETS, LayerPresetError, known_presets, layer_factors

CROSS, PLAIN = "CrossAttn{}Block2D", "{}Block2D"


@pytest.fixture(scope="module")
def unets() -> dict[str, Any]:
    """Return UNets with SD 1.5's and SDXL's blocks, narrow, and one with fewer."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    def build(kinds: str, depths: tuple[int, ...], layers: int = 2) -> Any:
        names = [CROSS if kind == "x" else PLAIN for kind in kinds]
        return UNet2DConditionModel(
            block_out_channels=(8,) * len(kinds),
            layers_per_block=layers,
            transformer_layers_per_block=depths,
            cross_attention_dim=8,
            attention_head_dim=2,
            norm_num_groups=4,
            down_block_types=tuple(name.format("Down") for name in names),
            up_block_types=tuple(name.format("Up") for name in reversed(names)),
        )

    return {
        "sd1": build("xxx-", (1, 1, 1, 1)),
        "sdxl": build("-xx", (1, 2, 3)),
        "slim": build("xxx-", (1, 1, 1, 1), layers=1),
    }


def names_of(unet: Any) -> tuple[str, ...]:
    return tuple(layer.name for layer in pack_layers(unet))


SDXL_STYLE = {"up": {"block_0": [0.0, 1.0, 0.0]}}
SDXL_LAYOUT = {"down": {"block_2": [0.0, 1.0]}}


@pytest.mark.parametrize(
    ("preset", "scales"),
    [
        ("all", 1.0),
        ("style", SDXL_STYLE),
        ("layout", SDXL_LAYOUT),
        ("style+layout", SDXL_STYLE | SDXL_LAYOUT),
    ],
)
def test_sdxl_presets_are_those_of_diffusers_documentation(
    unets: dict[str, Any], preset: str, scales: Any
) -> None:
    from diffusers.loaders.unet_loader_utils import _maybe_expand_lora_scales

    (expanded,) = _maybe_expand_lora_scales(unets["sdxl"], [scales], default_scale=0.0)
    names = names_of(unets["sdxl"])

    def of(layer: str) -> float:
        if not isinstance(expanded, dict):
            return float(expanded)
        return float(next(scale for block, scale in expanded.items() if layer.startswith(f"{block}.")))

    factors = layer_factors(preset, "sdxl", names)
    assert factors == tuple(of(name) for name in names)
    assert preset == "all" or {0.0, 1.0} == set(factors)


@pytest.mark.parametrize(
    ("preset", "numbered"),
    [
        ("style", dict.fromkeys((0, 1, 2, 3, 9, 10, 11, 12, 13, 14, 15), 1.0)),
        ("layout", {4: 0.25, 5: 1.0}),
        ("style+layout", dict.fromkeys((0, 1, 2, 3, 5, 9, 10, 11, 12, 13, 14, 15), 1.0) | {4: 0.25}),
    ],
)
def test_sd15_presets_have_the_layer_numbers_of_comfyui(
    unets: dict[str, Any], preset: str, numbered: dict[int, float]
) -> None:
    factors = layer_factors(preset, "sd1", names_of(unets["sd1"]))
    assert factors == tuple(numbered.get(number, 0.0) for number in range(16))


@pytest.mark.parametrize(
    ("family", "unet"), [("sd2", "sd1"), ("sd1", "slim"), ("sd1", "sdxl"), ("sdxl", "sd1")]
)
def test_where_nobody_has_found_the_layers_there_is_no_preset(
    unets: dict[str, Any], family: str, unet: str
) -> None:
    names = names_of(unets[unet])
    assert known_presets(family, names) == ("all",)
    assert layer_factors("all", family, names) == (1.0,) * len(names)
    with pytest.raises(LayerPresetError, match=rf"'style'.*family {family}.*it takes all") as caught:
        layer_factors("style", family, names)
    assert caught.value.known == ("all",)


def test_an_unknown_preset_is_named_with_those_there_are(unets: dict[str, Any]) -> None:
    assert known_presets("sd1", names_of(unets["sd1"])) == PRESETS
    with pytest.raises(LayerPresetError, match=r"'mood'.* all, style, layout, style\+layout"):
        layer_factors("mood", "sd1", names_of(unets["sd1"]))
