"""Our pictures are diffusers' pictures: tiny random models, every sampler and every setting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.equivalence.harness import Case, Engine, draw_with_diffusers, max_channel_error
from tests.tinymodels import TinySettings, build_tiny_model

TOLERANCE = 2
"""Of 255, on any channel of any pixel."""

Compare = Callable[[str, str, Case], int]

EPSILON = [
    # every sampler
    Case(sampler="ddim", steps=20),
    Case(sampler="euler", steps=12),
    Case(sampler="euler_ancestral", steps=9),
    Case(sampler="dpmpp_2m", steps=10),
    Case(sampler="dpmpp_2m", steps=20, guidance=3.0),
    Case(sampler="dpmpp_2m_karras", steps=8),
    Case(sampler="unipc", steps=7),
    Case(sampler="lcm", steps=4, guidance=1.0),
    Case(sampler="lcm", steps=6, guidance=1.5),
    # few steps and many
    Case(sampler="ddim", steps=1),
    Case(sampler="unipc", steps=2),
    Case(sampler="euler", steps=30),
    # guidance
    Case(sampler="ddim", steps=8, guidance=1.0),
    Case(sampler="dpmpp_2m", steps=8, guidance=0.0),
    Case(sampler="ddim", steps=8, guidance=12.0),
    Case(sampler="euler", steps=8, guidance=7.5, rescale=0.7),
    Case(sampler="dpmpp_2m_karras", steps=8, guidance=9.0, rescale=1.0, scale=0.5),
    Case(sampler="ddim", steps=8, interval=(0.25, 0.75)),
    Case(sampler="euler_ancestral", steps=6, interval=(0.0, 0.5), seeds=(3, 4), negative="dark"),
    Case(sampler="unipc", steps=10, guidance=7.5, interval=(0.15, 1.0), scale=None),
    Case(sampler="dpmpp_2m", steps=6, interval=(0.9, 0.95)),
    # scale
    Case(sampler="ddim", steps=8, scale=0.0),
    Case(sampler="euler_ancestral", steps=6, scale=0.0, guidance=1.0),
    Case(sampler="unipc", steps=8, scale=1.2),
    Case(sampler="euler", steps=8, scale=0.35),
    # negative prompt
    Case(sampler="ddim", steps=8, negative="blurred, dark"),
    Case(sampler="unipc", steps=8, negative="a man with a red hat", scale=None),
    # no reference
    Case(sampler="ddim", steps=8, scale=None),
    Case(sampler="euler_ancestral", steps=8, scale=None, guidance=1.0),
    # several images
    Case(sampler="ddim", steps=6, seeds=(1, 2, 3)),
    Case(sampler="euler_ancestral", steps=5, seeds=(9, 8), negative="old"),
    Case(sampler="dpmpp_2m", steps=6, seeds=(4, 5), scale=None, guidance=1.0),
    # sizes and prompts
    Case(sampler="ddim", steps=4, size=(96, 64)),
    Case(sampler="ddim", steps=4, prompt=""),
    Case(sampler="ddim", steps=4, prompt="word " * 100),
]
V_PREDICTION = [
    Case(sampler="ddim", steps=10),
    Case(sampler="euler", steps=8, guidance=7.5, rescale=0.7),
    Case(sampler="euler_ancestral", steps=6, negative="dark"),
    Case(sampler="dpmpp_2m_karras", steps=8),
    Case(sampler="unipc", steps=8, scale=None),
    Case(sampler="lcm", steps=4, guidance=1.0),
]
OTHER_ADAPTERS = [
    Case(sampler="ddim", steps=8),
    Case(sampler="euler_ancestral", steps=6, scale=0.6, negative="dark", seeds=(3, 4)),
    Case(sampler="unipc", steps=6, guidance=1.0),
    Case(sampler="ddim", steps=4, scale=0.0),
]
WIDE_LATENTS = [
    Case(sampler="ddim", steps=20, guidance=3.0, seeds=(1, 2)),
    Case(sampler="dpmpp_2m", steps=10),
    Case(sampler="ddim", steps=6, guidance=1.0, scale=None, size=(96, 64)),
]
ADAPTERS = ("base", "plus", "plus-face", "full-face")
MODELS = {
    "epsilon": TinySettings(adapters=ADAPTERS),
    "v_prediction": TinySettings(adapters=ADAPTERS, prediction_type="v_prediction"),
    "wide latents": TinySettings(
        latent_channels=12, prediction_type="v_prediction", timestep_spacing="trailing", beta_end=0.02
    ),
}


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        name: build_tiny_model(tmp_path_factory.mktemp("tiny") / "model", settings)
        for name, settings in MODELS.items()
    }


@pytest.fixture(scope="module")
def compare(roots: dict[str, Path]) -> Iterator[Compare]:
    """Return the function that draws a case on both sides and returns the largest error."""
    engines: dict[tuple[str, str], Engine] = {}
    worst: dict[tuple[str, str], int] = {}

    def drawn(model: str, adapter: str, case: Case) -> int:
        key = (model, adapter)
        if key not in engines:
            engines[key] = Engine(roots[model], adapter)
        ours = engines[key].draw_case(case)
        theirs = draw_with_diffusers(roots[model], adapter, case)
        assert np.std(theirs[0]) > 10, "an even picture compares nothing"
        error = max_channel_error(ours, theirs)
        worst[key] = max(worst.get(key, 0), error)
        return error

    yield drawn
    for (model, adapter), error in worst.items():
        print(f"\nlargest error, {model}, adapter {adapter}: {error}/255")


@pytest.mark.parametrize("case", EPSILON, ids=str)
def test_epsilon(compare: Compare, case: Case) -> None:
    assert compare("epsilon", "base", case) <= TOLERANCE


@pytest.mark.parametrize("case", V_PREDICTION, ids=str)
def test_v_prediction(compare: Compare, case: Case) -> None:
    assert compare("v_prediction", "base", case) <= TOLERANCE


@pytest.mark.parametrize("case", [*V_PREDICTION, *WIDE_LATENTS], ids=str)
def test_12_latent_channels_and_trailing_timesteps(compare: Compare, case: Case) -> None:
    assert compare("wide latents", "base", case) <= TOLERANCE


@pytest.mark.parametrize("adapter", ADAPTERS[1:])
@pytest.mark.parametrize("case", OTHER_ADAPTERS, ids=str)
def test_other_adapters(compare: Compare, adapter: str, case: Case) -> None:
    assert compare("epsilon", adapter, case) <= TOLERANCE


def test_what_is_compared_depends_on_every_setting(roots: dict[str, Path]) -> None:
    """The tiny model must not be so flat that a wrong engine would pass."""
    base = Case(sampler="ddim", steps=8)
    reference = draw_with_diffusers(roots["epsilon"], "base", base)
    changed = (
        Case(sampler="ddim", steps=8, scale=0.6),
        Case(sampler="ddim", steps=8, scale=None),
        Case(sampler="ddim", steps=8, guidance=3.0),
        Case(sampler="ddim", steps=8, rescale=0.7),
        Case(sampler="ddim", steps=8, negative="dark"),
        Case(sampler="ddim", steps=8, prompt="another"),
        Case(sampler="ddim", steps=8, seeds=(12,)),
        Case(sampler="ddim", steps=8, reference=1),
        Case(sampler="ddim", steps=7),
        Case(sampler="unipc", steps=8),
        Case(sampler="euler_ancestral", steps=8),
    )
    for case in changed:
        other = draw_with_diffusers(roots["epsilon"], "base", case)
        assert max_channel_error(reference, other) > TOLERANCE, case
