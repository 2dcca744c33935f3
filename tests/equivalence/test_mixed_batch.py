"""A picture does not depend on what shares its batch."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from engine.protocol.framing import Tensor
from engine.protocol.messages import Submit
from tests.equivalence.harness import Case, Engine, Pictures, max_channel_error, portrait
from tests.tinymodels import build_tiny_model

JOBS = 48
REFERENCES = 8
COUNTS = (1, 1, 2, 1, 4, 1, 3)
"""References of one request."""
SAMPLERS = ("ddim", "euler", "euler_ancestral", "dpmpp_2m_karras", "unipc", "lcm")
TOLERANCE = 1
"""Of 255, between a request in a mixed batch and the same request by itself."""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine(build_tiny_model(tmp_path_factory.mktemp("tiny") / "model"))


@pytest.fixture(scope="module")
def references(engine: Engine) -> list[Tensor]:
    return engine.encode([portrait(number) for number in range(REFERENCES)])


def requests(engine: Engine, references: list[Tensor]) -> list[tuple[Submit, Tensor | None]]:
    """Return 48 requests that differ in everything; every sixth is deterministic."""
    chance = random.Random(7)
    jobs: list[tuple[Submit, Tensor | None]] = []
    for number in range(JOBS):
        sampler = SAMPLERS[number % len(SAMPLERS)]
        case = Case(
            sampler=sampler,
            steps=chance.randint(4, 30),
            guidance=1.0 if number % 8 == 3 else round(chance.uniform(1, 10), 2),
            scale=round(chance.uniform(0, 1.2), 2) if number % 9 else 0.0,
            rescale=0.7 if number % 7 == 2 else 0.0,
            interval=(0.2, 0.6) if number % 5 == 1 else (0.0, 1.0),
            prompt=f"portrait {number % 5}, scene {chance.randint(0, 9)}",
            negative="dark" if number % 3 else "",
            seeds=tuple(chance.sample(range(1000), chance.choice((1, 1, 1, 2)))),
        )
        deterministic = number % 6 == number // 6 % 6
        submit = engine.submit(case, f"job-{number}", deterministic=deterministic)
        tokens = np.stack([references[(number + more) % REFERENCES] for more in range(COUNTS[number % 7])])
        jobs.append((submit, None if number % 16 == 5 else tokens))
    return jobs


def test_48_mixed_requests_each_equal_themselves_alone(engine: Engine, references: list[Tensor]) -> None:
    jobs = requests(engine, references)
    together = engine.draw(jobs)
    errors = {
        submit.job_id: max_channel_error(
            together[submit.job_id], engine.draw([(submit, tokens)])[submit.job_id]
        )
        for submit, tokens in jobs
    }
    print(f"\nlargest error, mixed batch against alone: {max(errors.values())}/255")
    assert max(errors.values()) <= TOLERANCE
    for submit, _ in jobs:
        assert submit.deterministic <= (errors[submit.job_id] == 0), submit


def test_deterministic_requests_repeat_their_bits_whatever_their_neighbours(
    engine: Engine, references: list[Tensor]
) -> None:
    jobs = requests(engine, references)
    fixed = [pair for pair in jobs if pair[0].deterministic]
    others = [pair for pair in jobs if not pair[0].deterministic]
    assert len(fixed) == 8
    runs: list[dict[str, Pictures]] = []
    for run in range(3):
        chance = random.Random(run)
        batch = [*fixed, *chance.sample(others, 12)]
        chance.shuffle(batch)
        runs.append(engine.draw(batch))
    for submit, _ in fixed:
        first, *again = (run[submit.job_id] for run in runs)
        for other in again:
            np.testing.assert_array_equal(first, other)


def test_a_fresh_engine_repeats_the_bits_of_deterministic_requests(
    engine: Engine, references: list[Tensor], tmp_path: Path
) -> None:
    fresh = Engine(build_tiny_model(tmp_path / "model"))
    jobs = requests(engine, references)
    submit, tokens = next(pair for pair in jobs if pair[0].deterministic and pair[1] is not None)
    here = engine.draw([(submit, tokens)])[submit.job_id]
    there = fresh.draw([(submit, tokens)])[submit.job_id]
    np.testing.assert_array_equal(here, there)
