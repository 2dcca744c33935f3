"""Several references of one adapter, and layer presets, are what diffusers has for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.equivalence.harness import Case, Engine, draw_with_diffusers, max_channel_error
from tests.tinymodels import TinySettings, TinyXLSettings, build_tiny_model, build_tiny_xl

TOLERANCE = 2
"""Of 255, on any channel of any pixel."""

ADAPTERS = ("base", "plus", "full-face")

SEVERAL = [
    Case(sampler="ddim", steps=6, others=(1,)),
    Case(sampler="dpmpp_2m", steps=6, guidance=7.0, others=(1, 2)),
    Case(sampler="ddim", steps=6, guidance=1.0, scale=2.0, reference=3, others=(1,)),
    Case(sampler="euler_ancestral", steps=5, scale=0.6, negative="dark", others=(1, 2, 3), seeds=(3, 4)),
]
STYLE = {"down": {"block_0": 1.0, "block_1": 1.0}, "mid": 1.0, "up": {"block_2": 1.0, "block_3": 1.0}}
HALF_LAYOUT = {"down": {"block_2": [0.125, 0.5]}}
BOTH = {
    "down": {"block_0": 1.0, "block_1": 1.0, "block_2": [0.25, 1.0]},
    "mid": STYLE["mid"],
    "up": STYLE["up"],
}
LAYERS = [
    Case(sampler="ddim", steps=6, layers="style", layer_scales=STYLE),
    Case(sampler="ddim", steps=6, scale=0.5, layers="layout", layer_scales=HALF_LAYOUT),
    Case(sampler="unipc", steps=6, others=(1,), layers="style+layout", layer_scales=BOTH),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model of SD 1.5's blocks: the presets are for no other."""
    settings = TinySettings(adapters=ADAPTERS, block_out_channels=(32, 32, 32, 64), layers_per_block=2)
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "model", settings)


XL_STYLE, XL_LAYOUT = {"up": {"block_0": [0.0, 1.0, 0.0]}}, {"down": {"block_2": [0.0, 1.0]}}
XL = [
    Case(sampler="ddim", steps=6, guidance=7.0, others=(1, 2)),
    Case(sampler="ddim", steps=6, guidance=7.0, layers="style", layer_scales=XL_STYLE),
    Case(sampler="ddim", steps=6, guidance=7.0, layers="layout", layer_scales=XL_LAYOUT),
    Case(sampler="ddim", steps=6, others=(1,), layers="style+layout", layer_scales=XL_STYLE | XL_LAYOUT),
]


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model of SDXL's blocks, with as many transformers as SDXL has."""
    settings = TinyXLSettings(adapters=("plus",), layers_per_block=2)
    return build_tiny_xl(tmp_path_factory.mktemp("tiny") / "xl", settings)


@pytest.mark.parametrize("case", XL, ids=str)
def test_sdxl(xl: Path, case: Case) -> None:
    theirs = draw_with_diffusers(xl, "plus", case)
    assert max_channel_error(Engine(xl).draw_case(case), theirs) <= TOLERANCE
    plain = draw_with_diffusers(xl, "plus", replace(case, others=(), layer_scales=None))
    assert max_channel_error(plain, theirs) > TOLERANCE


@pytest.fixture(scope="module")
def engines(root: Path) -> dict[str, Engine]:
    return {adapter: Engine(root, adapter) for adapter in ADAPTERS}


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("case", SEVERAL, ids=str)
def test_several_references(root: Path, engines: dict[str, Engine], adapter: str, case: Case) -> None:
    theirs = draw_with_diffusers(root, adapter, case)
    assert np.std(theirs[0]) > 10, "an even picture compares nothing"
    assert max_channel_error(engines[adapter].draw_case(case), theirs) <= TOLERANCE
    alone = draw_with_diffusers(root, adapter, replace(case, others=()))
    assert max_channel_error(alone, theirs) > TOLERANCE


@pytest.mark.parametrize("case", LAYERS, ids=str)
def test_layer_presets(root: Path, engines: dict[str, Engine], case: Case) -> None:
    theirs = draw_with_diffusers(root, "base", case)
    assert max_channel_error(engines["base"].draw_case(case), theirs) <= TOLERANCE
    everywhere = draw_with_diffusers(root, "base", replace(case, layer_scales=None))
    assert max_channel_error(everywhere, theirs) > TOLERANCE


def test_weights_scale_each_reference_under_the_one_softmax(root: Path, engines: dict[str, Engine]) -> None:
    once = Case(sampler="ddim", steps=6, scale=0.8)
    theirs = draw_with_diffusers(root, "base", once)
    weighted = [
        # one reference: the weight is a factor of the scale
        replace(once, scale=0.4, weights=(2.0,)),
        # the same one twice: the mean of the weights is
        replace(once, others=(0,), weights=(0.5, 1.5)),
        replace(once, others=(0, 0, 0), weights=(4.0, 0.0, 0.0, 0.0)),
    ]
    for case in weighted:
        assert max_channel_error(engines["base"].draw_case(case), theirs) <= TOLERANCE
    turned = [
        engines["base"].draw_case(replace(once, others=(1,), weights=weights))
        for weights in ((2.0, 0.0), (0.0, 2.0))
    ]
    assert max_channel_error(*turned) > TOLERANCE
