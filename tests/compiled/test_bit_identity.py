"""On compiled backends a picture is the same, bit for bit, alone and in any batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.backends.base import MAX_REFERENCES
from engine.backends.compiled.backend import CompiledBackend
from engine.protocol.framing import Tensor
from engine.protocol.messages import Submit
from tests.backends.rows import row_of
from tests.compiled import NEEDS_INT8, RUNTIMES, calibrated, compiled
from tests.equivalence.harness import Case, Engine, portrait
from tests.keeping import kept
from tests.tinymodels import build_tiny_model

ROWS = 32
REFERENCES = (1, 0, 1, 2, 1, 4, 1)
BUCKETS = (1, 2, 3, 4, 8, 32)
SAMPLERS = ("ddim", "euler", "euler_ancestral", "dpmpp_2m_karras", "unipc", "lcm")
QUICK = settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return calibrated(build_tiny_model(tmp_path_factory.mktemp("tiny") / "model"))


@kept
def placed(
    runtime: str,
    root: Path,
    dtype: str,
    threads: int = 1,
    lanes: int | None = None,
    buckets: tuple[int, ...] = BUCKETS,
) -> tuple[CompiledBackend, list[int]]:
    """Return a backend that holds many different rows, some without a reference, some with several."""
    backend = compiled(runtime, root, dtype=dtype, buckets=buckets, threads=threads, lanes=lanes)
    prompts = backend.encode_prompts(["a portrait of a woman", "a man smiling", "", "a red hat"])
    generator = torch.Generator().manual_seed(0)
    shape = (MAX_REFERENCES, backend.facts.reference_tokens, backend.facts.token_width)
    slots = []
    for index in range(ROWS):
        references = torch.randn(shape, generator=generator)[: REFERENCES[index % len(REFERENCES)]]
        row = row_of(backend, prompts[index % 4], *references, scale=(1.0, 0.3, 0.0, 1.5)[index % 4])
        slots.append(backend.place(row))
    return backend, slots


@kept
def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(ROWS, 4, 8, 8, generator=generator), torch.linspace(1, 999, ROWS)


@kept
def alone(runtime: str, root: Path, dtype: str, threads: int, lanes: int | None) -> torch.Tensor:
    """Return each row's noise, predicted by itself in the smallest bucket."""
    backend, slots = placed(runtime, root, dtype, threads, lanes)
    sample, step = inputs()
    return torch.cat(
        [backend.predict_noise(slots[i : i + 1], sample[i : i + 1], step[i : i + 1], 1) for i in range(ROWS)]
    )


@pytest.mark.parametrize(
    ("runtime", "dtype", "threads", "lanes"),
    [
        ("openvino", "float32", 1, 1),
        ("openvino", "bfloat16", 1, 1),
        ("openvino", "bfloat16", 2, 1),
        # In odd buckets one lane has both threads.
        ("openvino", "float32", 2, 2),
        ("openvino", "bfloat16", 2, 2),
        pytest.param("openvino", "int8", 2, 1, marks=NEEDS_INT8),
        pytest.param("openvino", "int8", 2, 2, marks=NEEDS_INT8),
        ("onnxruntime", "float32", 1, None),
    ],
)
@given(data=st.data())
@QUICK
def test_a_row_is_the_same_in_every_bucket_position_and_company(
    root: Path, runtime: str, dtype: str, threads: int, lanes: int | None, data: st.DataObject
) -> None:
    backend, slots = placed(runtime, root, dtype, threads, lanes)
    sample, step = inputs()
    bucket = data.draw(st.sampled_from(BUCKETS))
    rows = data.draw(st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=bucket, unique=True))
    found = backend.predict_noise([slots[row] for row in rows], sample[rows], step[rows], bucket)
    assert torch.equal(found, alone(runtime, root, dtype, threads, lanes)[rows])


GUIDED_BUCKETS = (1, 2, 4, 8, 32)


@kept
def guided(
    runtime: str, root: Path, dtype: str, threads: int, lanes: int | None
) -> tuple[CompiledBackend, list[int]]:
    """Return a backend that holds rows and was warmed up with guided images: the largest bucket shares."""
    backend, slots = placed(runtime, root, dtype, threads, lanes, GUIDED_BUCKETS)
    sample, step = inputs()
    for bucket in GUIDED_BUCKETS[1:]:
        backend.predict_noise(slots[:2], sample[[0, 0]], step[[0, 0]], bucket, [0, 0])
    assert bool(backend._sharing.seats) == (runtime == "openvino")
    return backend, slots


@pytest.mark.parametrize(
    ("runtime", "dtype", "threads", "lanes"),
    [
        ("openvino", "float32", 1, 1),
        ("openvino", "bfloat16", 1, 1),
        ("openvino", "bfloat16", 2, 2),
        pytest.param("openvino", "int8", 1, 1, marks=NEEDS_INT8),
        pytest.param("openvino", "int8", 2, 2, marks=NEEDS_INT8),
        ("onnxruntime", "float32", 1, None),
    ],
)
@given(data=st.data())
@QUICK
def test_the_rows_of_a_guided_image_are_the_same_in_every_company(
    root: Path, runtime: str, dtype: str, threads: int, lanes: int | None, data: st.DataObject
) -> None:
    """Beside other guided images, and images of one row, in every bucket; and so are those of one row."""
    backend, slots = guided(runtime, root, dtype, threads, lanes)
    sample, step = inputs()
    bucket = data.draw(st.sampled_from(GUIDED_BUCKETS[1:]))
    rows = data.draw(st.lists(st.integers(0, ROWS - 1), min_size=2, max_size=bucket, unique=True))
    pairs = data.draw(st.integers(1, len(rows) // 2))
    count = len(rows) - pairs
    images = [*range(count), *range(pairs)]
    of = [rows[image] for image in images]
    found = backend.predict_noise([slots[row] for row in rows], sample[of], step[of], bucket, images)
    for image in {0, data.draw(st.integers(0, count - 1)), count - 1}:
        own = [row for row, whose in enumerate(images) if whose == image]
        drawn = [of[row] for row in own]
        alone = backend.predict_noise(
            [slots[rows[row]] for row in own], sample[drawn], step[drawn], 2, [0] * len(own)
        )
        assert torch.equal(found[own], alone)


@kept
def engine(runtime: str, root: Path) -> tuple[Engine, list[Tensor]]:
    made = Engine(root, backend=compiled(runtime, root, buckets=BUCKETS))
    return made, made.encode([portrait(number) for number in range(3)])


CASES = st.builds(
    Case,
    sampler=st.sampled_from(SAMPLERS),
    steps=st.integers(2, 5),
    guidance=st.sampled_from((1.0, 3.0, 7.5)),
    scale=st.sampled_from((None, 0.0, 0.7, 1.2)),
    negative=st.sampled_from(("", "dark")),
    prompt=st.sampled_from(("a portrait", "a red hat", "")),
    seeds=st.lists(st.integers(0, 99), min_size=1, max_size=2, unique=True).map(tuple),
    reference=st.integers(0, 2),
)


@pytest.mark.parametrize("runtime", RUNTIMES)
@given(cases=st.lists(CASES, min_size=2, max_size=6))
@settings(QUICK, max_examples=10)
def test_a_picture_is_the_same_alone_and_in_any_batch(root: Path, runtime: str, cases: list[Case]) -> None:
    draw, references = engine(runtime, root)
    jobs: list[tuple[Submit, Tensor | None]] = [
        (draw.submit(case, f"job-{number}"), None if case.scale is None else references[case.reference][None])
        for number, case in enumerate(cases)
    ]
    together = draw.draw(jobs)
    for job in jobs:
        name = job[0].job_id
        for mine, other in zip(draw.draw([job])[name], together[name], strict=True):
            np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_other_sizes_are_the_same_in_any_company_too(root: Path, runtime: str) -> None:
    backend, slots = placed(runtime, root, "float32")
    generator = torch.Generator().manual_seed(2)
    sample, step = torch.randn(4, 4, 12, 8, generator=generator), torch.linspace(5, 900, 4)
    together = backend.predict_noise(slots[:4], sample, step, 8)
    for row in range(4):
        one = backend.predict_noise([slots[row]], sample[row : row + 1], step[row : row + 1], 2)
        assert torch.equal(one[0], together[row])
