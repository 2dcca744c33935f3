"""Our pictures of the shipped model are diffusers' pictures of it, and do not depend on their neighbours."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from engine.embedded import model_directory
from tests.equivalence.harness import Case, Engine, Pictures, draw_with_diffusers, max_channel_error, portrait

TOLERANCE = 2
"""Of 255, on any channel of any pixel, against diffusers."""

ALONE_TOLERANCE = 1
"""Of 255, between a request in a mixed batch and the same request by itself."""

CASES = [
    Case(sampler="ddim", steps=10),
    Case(sampler="euler", steps=8, guidance=3.0, rescale=0.7),
    Case(sampler="euler_ancestral", steps=8, scale=0.6, negative="hat"),
    Case(sampler="dpmpp_2m", steps=8, guidance=2.0, seeds=(1, 2)),
    Case(sampler="dpmpp_2m_karras", steps=8, scale=0.0),
    Case(sampler="unipc", steps=8, scale=None),
    Case(sampler="lcm", steps=4, guidance=1.0),
    Case(sampler="ddim", steps=6, guidance=1.0, scale=1.2),
]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(model_directory())


@pytest.fixture(scope="module")
def adapter(engine: Engine) -> str:
    return engine.backend.facts.adapters[0].name


@pytest.fixture(scope="module")
def worst() -> Iterator[list[int]]:
    errors: list[int] = []
    yield errors
    print(f"\nlargest error, embedded model: {max(errors, default=0)}/255")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_picture_is_diffusers_picture(engine: Engine, adapter: str, worst: list[int], case: Case) -> None:
    theirs = draw_with_diffusers(model_directory(), adapter, case)
    assert np.std(theirs[0]) > 10, "an even picture compares nothing"
    worst.append(max_channel_error(engine.draw_case(case), theirs))
    assert worst[-1] <= TOLERANCE


def test_a_reference_has_the_same_tokens_whatever_is_encoded_with_it(engine: Engine) -> None:
    together = engine.encode([portrait(number) for number in range(3)])
    for number in range(3):
        (alone,) = engine.encode([portrait(number)])
        np.testing.assert_array_equal(alone, together[number])


def test_neighbours_change_nothing(engine: Engine) -> None:
    tokens = engine.encode([portrait(case.reference) for case in CASES])
    jobs = [
        (
            engine.submit(case, f"job-{number}", deterministic=number % 3 == 0),
            None if case.scale is None else np.stack(tokens[number : number + 1 + number % 2]),
        )
        for number, case in enumerate(CASES)
    ]
    runs: list[dict[str, Pictures]] = [engine.draw(jobs), engine.draw(jobs[::-1][:6])]
    for pair in jobs:
        submit = pair[0]
        alone = engine.draw([pair])[submit.job_id]
        for run in runs:
            if submit.job_id in run:
                allowed = 0 if submit.deterministic else ALONE_TOLERANCE
                assert max_channel_error(alone, run[submit.job_id]) <= allowed, submit
