"""Our pictures are diffusers' pictures for every family: SDXL with every adapter, SD 2.x, LCM and Turbo."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.equivalence.harness import (
    Case,
    Engine,
    _pipeline,
    draw_with_diffusers,
    max_channel_error,
    portrait,
)
from tests.tinymodels import LCM, SD2, TURBO, TinySettings, TinyXLSettings, build_tiny_model, build_tiny_xl

TOLERANCE = 2
"""Of 255, on any channel of any pixel, against diffusers."""

ALONE_TOLERANCE = 1
"""Of 255, between a request in a mixed batch and the same request by itself."""

ADAPTERS = ("base", "plus", "plus-face", "full-face")

SDXL = [
    Case(sampler="ddim", steps=8),
    Case(sampler="euler", steps=6, guidance=7.5, rescale=0.7, negative="dark"),
    Case(sampler="euler_ancestral", steps=5, scale=0.6, seeds=(3, 4)),
    Case(sampler="dpmpp_2m_karras", steps=6, scale=0.0),
    Case(sampler="unipc", steps=6, scale=None),
    Case(sampler="lcm", steps=4, guidance=1.0),
    Case(sampler="ddim", steps=4, size=(96, 64), scale=1.2),
    Case(sampler="ddim", steps=4, prompt="", guidance=3.0),
    Case(sampler="ddim", steps=4, prompt="word " * 100, negative="old " * 90),
]
SDXL_ADAPTERS = [
    Case(sampler="ddim", steps=6),
    Case(sampler="euler_ancestral", steps=4, scale=0.6, negative="dark"),
    Case(sampler="unipc", steps=4, guidance=1.0, scale=0.3),
]
OTHERS = {
    "sd2": [
        Case(sampler="ddim", steps=8),
        Case(sampler="euler", steps=6, negative="dark", rescale=0.7),
        Case(sampler="dpmpp_2m", steps=6, scale=None),
        Case(sampler="unipc", steps=5, guidance=1.0, scale=0.6),
    ],
    "lcm": [
        Case(sampler="lcm", steps=4, guidance=8.5),
        Case(sampler="lcm", steps=2, guidance=1.0, scale=None),
        Case(sampler="lcm", steps=4, guidance=3.0, scale=0.6, negative="a caller may say what is not heard"),
        Case(sampler="ddim", steps=6, guidance=5.0, rescale=0.7),
    ],
    "turbo": [
        Case(sampler="euler", steps=1, guidance=0.0),
        Case(sampler="euler", steps=4, guidance=1.0, scale=None),
        Case(sampler="euler_ancestral", steps=2, guidance=0.0, seeds=(1, 2)),
        Case(sampler="euler", steps=4, guidance=4.0),
    ],
    "sdxl without zeros": [Case(sampler="ddim", steps=4), Case(sampler="ddim", steps=4, negative="dark")],
    "sdxl lcm": [Case(sampler="lcm", steps=4, guidance=6.0), Case(sampler="lcm", steps=3, scale=None)],
    "sdxl v_prediction": [Case(sampler="euler", steps=6), Case(sampler="ddim", steps=6, scale=None)],
}
BUILDERS: dict[str, Callable[[Path], Path]] = {
    "sd1": lambda root: build_tiny_model(root, TinySettings(adapters=ADAPTERS)),
    "sdxl": lambda root: build_tiny_xl(root, TinyXLSettings(adapters=ADAPTERS)),
    "sd2": lambda root: build_tiny_model(root, SD2),
    "lcm": lambda root: build_tiny_model(root, LCM),
    "turbo": lambda root: build_tiny_model(root, TURBO),
    "sdxl without zeros": lambda root: build_tiny_xl(root, TinyXLSettings(zeros_for_empty=False)),
    "sdxl lcm": lambda root: build_tiny_xl(root, TinyXLSettings(guidance_width=16)),
    "sdxl v_prediction": lambda root: build_tiny_xl(root, TinyXLSettings(prediction_type="v_prediction")),
}

Compare = Callable[[str, str, Case], int]


@pytest.fixture(scope="module")
def root_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return cache(lambda name: BUILDERS[name](tmp_path_factory.mktemp("tiny") / "model"))


@pytest.fixture(scope="module")
def engine_of(root_of: Callable[[str], Path]) -> Callable[[str, str], Engine]:
    return cache(lambda name, adapter: Engine(root_of(name), adapter))


@pytest.fixture(scope="module")
def compare(root_of: Callable[[str], Path], engine_of: Callable[[str, str], Engine]) -> Iterator[Compare]:
    """Return the function that draws a case on both sides and returns the largest error."""
    worst: dict[tuple[str, str], int] = {}

    def drawn(model: str, adapter: str, case: Case) -> int:
        theirs = draw_with_diffusers(root_of(model), adapter, case)
        assert np.std(theirs[0]) > 10, "an even picture compares nothing"
        error = max_channel_error(engine_of(model, adapter).draw_case(case), theirs)
        worst[model, adapter] = max(worst.get((model, adapter), 0), error)
        return error

    yield drawn
    for (model, adapter), error in worst.items():
        print(f"\nlargest error, {model}, adapter {adapter}: {error}/255")


@pytest.mark.parametrize("case", SDXL, ids=str)
def test_sdxl(compare: Compare, case: Case) -> None:
    assert compare("sdxl", "base", case) <= TOLERANCE


@pytest.mark.parametrize("adapter", ADAPTERS[1:])
@pytest.mark.parametrize("case", SDXL_ADAPTERS, ids=str)
def test_sdxl_with_other_adapters(compare: Compare, adapter: str, case: Case) -> None:
    assert compare("sdxl", adapter, case) <= TOLERANCE


@pytest.mark.parametrize(
    ("model", "case"), [(name, case) for name, cases in OTHERS.items() for case in cases], ids=str
)
def test_other_families(compare: Compare, model: str, case: Case) -> None:
    assert compare(model, "base", case) <= TOLERANCE


@pytest.mark.parametrize(
    ("model", "adapter"),
    [
        *((model, adapter) for model in ("sd1", "sdxl") for adapter in ADAPTERS),
        ("sd2", "base"),
        ("lcm", "base"),
    ],
)
def test_a_mixed_batch_draws_diffusers_pictures(
    root_of: Callable[[str], Path], engine_of: Callable[[str, str], Engine], model: str, adapter: str
) -> None:
    """Requests that differ in everything share ticks, and each is what diffusers draws by itself."""
    engine = engine_of(model, adapter)
    cases = [
        Case(sampler="ddim", steps=4, seeds=(1,)),
        Case(sampler="lcm", steps=3, guidance=2.0, scale=0.5, seeds=(2,), negative="dark", reference=1),
        Case(sampler="euler", steps=5, guidance=1.0, scale=None, seeds=(3,), prompt="a red hat"),
        Case(sampler="unipc", steps=4, guidance=9.0, scale=0.0, seeds=(4,), prompt="a woman", reference=2),
        Case(sampler="euler_ancestral", steps=4, guidance=6.0, seeds=(5, 6), rescale=0.7, reference=3),
        Case(sampler="ddim", steps=4, size=(96, 64), seeds=(7,)),
        Case(sampler="ddim", steps=3, size=(64, 96), seeds=(8,), scale=None),
    ]
    tokens = engine.encode([portrait(case.reference) for case in cases])
    jobs = [
        (
            engine.submit(case, f"job-{number}", deterministic=number % 3 == 0),
            None if case.scale is None else tokens[number][None],
        )
        for number, case in enumerate(cases)
    ]
    together = engine.draw(jobs)
    for case, pair in zip(cases, jobs, strict=True):
        submit, pictures = pair[0], together[pair[0].job_id]
        assert max_channel_error(pictures, draw_with_diffusers(root_of(model), adapter, case)) <= TOLERANCE
        allowed = 0 if submit.deterministic else ALONE_TOLERANCE
        assert max_channel_error(pictures, engine.draw([pair])[submit.job_id]) <= allowed, case


def test_what_is_compared_depends_on_every_input(root_of: Callable[[str], Path]) -> None:
    """The tiny models must not be so flat that an engine would pass that ignored an input."""
    base = Case(sampler="ddim", steps=4)
    changed = (
        Case(sampler="ddim", steps=4, negative="dark"),
        Case(sampler="ddim", steps=4, prompt="a red hat"),
        Case(sampler="ddim", steps=4, scale=0.5),
        Case(sampler="ddim", steps=4, guidance=2.0),
    )
    for model in ("sdxl", "sd2", "lcm"):
        reference = draw_with_diffusers(root_of(model), "base", base)
        for case in changed:
            if model != "lcm" or not case.negative:
                other = draw_with_diffusers(root_of(model), "base", case)
                assert max_channel_error(reference, other) > TOLERANCE, (model, case)
    zeros, words = (
        draw_with_diffusers(root_of(name), "base", base) for name in ("sdxl", "sdxl without zeros")
    )
    assert max_channel_error(zeros, words) > TOLERANCE


def test_sdxls_pooled_text_and_sizes_are_heard(root_of: Callable[[str], Path]) -> None:
    pipeline = _pipeline(root_of("sdxl"), None)
    weight = pipeline.unet.add_embedding.linear_1.weight
    base = Case(sampler="ddim", steps=4, scale=None)
    heard = draw_with_diffusers(root_of("sdxl"), "base", base)
    for columns in (slice(0, 16), slice(16, None)):
        kept = weight.detach().clone()
        weight.data[:, columns] = 0
        deaf = draw_with_diffusers(root_of("sdxl"), "base", base)
        weight.data = kept
        assert max_channel_error(heard, deaf) > TOLERANCE, columns


def test_a_latent_consistency_pipelines_directory_draws_its_pictures(
    root_of: Callable[[str], Path], tmp_path: Path
) -> None:
    from diffusers import LatentConsistencyModelPipeline

    root = Path(shutil.copytree(root_of("lcm"), tmp_path / "model"))
    index = root / "model_index.json"
    named = {"_class_name": "LatentConsistencyModelPipeline"}
    index.write_text(json.dumps(json.loads(index.read_text()) | named))
    pipeline: Any = LatentConsistencyModelPipeline.from_pretrained(str(root), low_cpu_mem_usage=False)
    pipeline.set_progress_bar_config(disable=True)
    case = Case(sampler="lcm", steps=4, guidance=8.5, scale=None)
    theirs = pipeline(
        case.prompt,
        num_inference_steps=case.steps,
        guidance_scale=case.guidance,
        generator=torch.Generator().manual_seed(case.seeds[0]),
    ).images
    ours = Engine(root).draw_case(case)
    assert max_channel_error(ours, [np.asarray(theirs[0])]) <= TOLERANCE
