"""The pictures of compiled backends are diffusers' pictures: tiny models with each adapter, and the shipped model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.embedded import model_directory
from tests.compiled import RUNTIMES, compiled
from tests.equivalence.harness import Case, Engine, draw_with_diffusers, max_channel_error
from tests.tinymodels import LCM, SD2, TinySettings, TinyXLSettings, build_tiny_model, build_tiny_xl

TOLERANCE = 2
"""Of 255, on any channel of any pixel, in f32."""

BFLOAT16_MEAN = 12.0
"""Of 255, on average over a picture of a tiny random model; docs/backends.md shows what it means on the shipped one."""

ADAPTERS = ("base", "plus", "plus-face", "full-face")
CASES = [
    Case(sampler="ddim", steps=6),
    Case(sampler="euler_ancestral", steps=4, scale=0.6, negative="dark", seeds=(3, 4)),
    Case(sampler="dpmpp_2m_karras", steps=4, guidance=1.0),
]
MORE = [
    Case(sampler="unipc", steps=4, scale=None),
    Case(sampler="euler", steps=4, guidance=7.5, rescale=0.7, scale=0.0),
    Case(sampler="ddim", steps=3, size=(96, 64)),
    Case(sampler="lcm", steps=3, guidance=1.0, prompt="word " * 100),
]
SDXL = [
    Case(sampler="ddim", steps=4),
    Case(sampler="euler_ancestral", steps=3, scale=0.6, seeds=(3, 4)),
    Case(sampler="unipc", steps=3, guidance=1.0, negative="dark"),
]
OTHERS = {
    "sd2": Case(sampler="ddim", steps=4, negative="dark"),
    "lcm": Case(sampler="lcm", steps=4, guidance=8.5),
    "sdxl lcm": Case(sampler="lcm", steps=4, guidance=6.0),
}
BUILDERS: dict[str, Callable[[Path], Path]] = {
    "sd2": lambda root: build_tiny_model(root, SD2),
    "lcm": lambda root: build_tiny_model(root, LCM),
    "sdxl lcm": lambda root: build_tiny_xl(root, TinyXLSettings(guidance_width=16)),
}
EMBEDDED = [
    Case(sampler="ddim", steps=4),
    Case(sampler="dpmpp_2m", steps=4, guidance=2.0, seeds=(1, 2)),
    Case(sampler="unipc", steps=3, scale=None),
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "model", TinySettings(adapters=ADAPTERS))


@pytest.fixture(scope="module")
def tiny_xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_xl(tmp_path_factory.mktemp("xl") / "model", TinyXLSettings(adapters=ADAPTERS))


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the shipped model's directory through a link, so that its export lies in the tests' folder."""
    link = tmp_path_factory.mktemp("shipped") / "model"
    link.symlink_to(model_directory())
    return link


@pytest.fixture(scope="module")
def errors() -> Iterator[dict[str, int]]:
    worst: dict[str, int] = {}
    yield worst
    for name, error in worst.items():
        print(f"\nlargest error, {name}: {error}/255")


def difference(runtime: str, root: Path, adapter: str, case: Case, errors: dict[str, int], name: str) -> int:
    engine = Engine(root, adapter, compiled(runtime, root, adapter))
    theirs = draw_with_diffusers(root, adapter, case)
    assert np.std(theirs[0]) > 10, "an even picture compares nothing"
    error = max_channel_error(engine.draw_case(case), theirs)
    key = f"{name} on {runtime}"
    errors[key] = max(errors.get(key, 0), error)
    return error


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_adapter(tiny: Path, errors: dict[str, int], runtime: str, adapter: str, case: Case) -> None:
    assert difference(runtime, tiny, adapter, case, errors, f"tiny {adapter}") <= TOLERANCE


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("case", MORE, ids=str)
def test_every_setting(tiny: Path, errors: dict[str, int], runtime: str, case: Case) -> None:
    assert difference(runtime, tiny, "base", case, errors, "tiny base") <= TOLERANCE


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("case", SDXL, ids=str)
def test_sdxl(tiny_xl: Path, errors: dict[str, int], runtime: str, adapter: str, case: Case) -> None:
    assert difference(runtime, tiny_xl, adapter, case, errors, f"SDXL {adapter}") <= TOLERANCE


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", OTHERS)
def test_other_families(tmp_path: Path, errors: dict[str, int], runtime: str, name: str) -> None:
    root = BUILDERS[name](tmp_path / "model")
    assert difference(runtime, root, "base", OTHERS[name], errors, name) <= TOLERANCE


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("case", EMBEDDED, ids=str)
def test_the_shipped_model(shipped: Path, errors: dict[str, int], runtime: str, case: Case) -> None:
    assert difference(runtime, shipped, "ip-adapter_limner", case, errors, "shipped") <= TOLERANCE


def test_bfloat16_is_near(tiny: Path) -> None:
    case = CASES[0]
    theirs = draw_with_diffusers(tiny, "base", case)
    ours = Engine(tiny, "base", compiled("openvino", tiny, "base", "bfloat16")).draw_case(case)
    exact = Engine(tiny, "base", compiled("openvino", tiny, "base")).draw_case(case)
    mean = float(np.abs(ours[0].astype(float) - theirs[0]).mean())
    print(
        f"\nOpenVINO bfloat16, tiny base: mean {mean:.2f}/255, largest {max_channel_error(ours, theirs)}/255"
    )
    assert mean <= BFLOAT16_MEAN
    # Where the CPU lacks bfloat16 arithmetic, OpenVINO emulates it: the hint has an effect everywhere.
    assert max_channel_error(ours, exact) > 0
