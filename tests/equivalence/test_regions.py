"""References with regions are what diffusers has for them: ``ip_adapter_masks``."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.protocol.framing import Tensor
from engine.protocol.messages import Submit
from tests.compiled import RUNTIMES, compiled
from tests.equivalence.harness import Case, Engine, draw_with_diffusers, max_channel_error, portrait
from tests.tinymodels import TinySettings, TinyXLSettings, build_tiny_model, build_tiny_xl

TOLERANCE = 2
"""Of 255, on any channel of any pixel."""

ADAPTERS = ("base", "plus", "full-face")
LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
CORNER = (0.25, 0.0, 1.0, 0.625)
CASES = [
    Case(sampler="ddim", steps=6, others=(1,), regions=(LEFT, RIGHT)),
    Case(sampler="euler_ancestral", steps=5, regions=(CORNER,), negative="dark", seeds=(3, 4)),
    Case(sampler="dpmpp_2m", steps=5, others=(1, 2), regions=(LEFT, None, CORNER), weights=(1.0, 0.5, 1.5)),
    Case(sampler="unipc", steps=4, guidance=1.0, others=(3,), regions=(RIGHT, RIGHT), size=(96, 64)),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "model", TinySettings(adapters=ADAPTERS))


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_xl(tmp_path_factory.mktemp("xl") / "model", TinyXLSettings(adapters=("plus",)))


def engine(root: Path, adapter: str, runtime: str) -> Engine:
    return Engine(root, adapter, None if runtime == "torch" else compiled(runtime, root, adapter))


@pytest.mark.parametrize("runtime", ["torch", *RUNTIMES])
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_regions(root: Path, adapter: str, runtime: str) -> None:
    ours = engine(root, adapter, runtime)
    for case in CASES:
        theirs = draw_with_diffusers(root, adapter, case)
        error = max_channel_error(ours.draw_case(case), theirs)
        assert error <= TOLERANCE, case
        everywhere = draw_with_diffusers(root, adapter, replace(case, regions=(), weights=()))
        assert max_channel_error(everywhere, theirs) > TOLERANCE, case


@pytest.mark.parametrize("runtime", ["torch", *RUNTIMES])
def test_regions_sdxl(xl: Path, runtime: str) -> None:
    case = CASES[0]
    theirs = draw_with_diffusers(xl, "plus", case)
    assert max_channel_error(engine(xl, "plus", runtime).draw_case(case), theirs) <= TOLERANCE


def requests(drawer: Engine) -> list[tuple[Submit, Tensor | None]]:
    """Return requests with and without references, with and without regions, of two sizes."""
    chance = random.Random(5)
    tokens = drawer.encode([portrait(number) for number in range(4)])
    jobs: list[tuple[Submit, Tensor | None]] = []
    for number in range(16):
        count = number % 4
        regions = tuple(chance.choice((LEFT, RIGHT, CORNER, None)) for _ in range(count))
        case = Case(
            sampler=chance.choice(("ddim", "euler_ancestral", "unipc")),
            steps=chance.randint(3, 6),
            guidance=chance.choice((1.0, 5.0)),
            seeds=(number,),
            regions=regions if number % 3 else (),
            size=(96, 64) if number % 5 == 4 else None,
        )
        own = np.stack([tokens[(number + more) % 4] for more in range(count)]) if count else None
        jobs.append((drawer.submit(case, f"job-{number}"), own))
    return jobs


@pytest.mark.parametrize(("runtime", "tolerance"), [("torch", 1), *((each, 0) for each in RUNTIMES)])
def test_a_picture_with_regions_does_not_depend_on_its_batch(
    root: Path, runtime: str, tolerance: int
) -> None:
    drawer = engine(root, "base", runtime)
    jobs = requests(drawer)
    together = drawer.draw(jobs)
    for job in jobs:
        alone = drawer.draw([job])[job[0].job_id]
        assert max_channel_error(alone, together[job[0].job_id]) <= tolerance, job[0]
