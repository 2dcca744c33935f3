"""Rows whose references have regions, beside rows without: same bits in any company, and nobody else's are changed."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.backends.base import Backend, RowConditioning
from engine.backends.compiled.backend import CompiledBackend, CompiledSettings
from engine.backends.compiled.runtime import CompiledGraph, Pairs, Shape
from engine.backends.slotted import RegionsUnsupportedError
from engine.backends.torch_backend import TorchBackend, TorchSettings
from engine.export.directory import ExportDirectory
from engine.export.manifest import REGIONAL
from engine.models.model import load_model
from engine.models.regions import WHOLE, Box
from tests.backends.rows import row_of
from tests.compiled import exported, make_runtime
from tests.tinymodels import TinySettings, build_tiny_model

BUCKET, BUCKETS = 4, (1, 2, 4, 8)
LEFT: Box = (0.0, 0.0, 0.5, 1.0)
LOWER: Box = (0.2, 0.4, 1.0, 1.0)
REGIONS: list[tuple[str, tuple[Box | None, ...]]] = [
    ("base", (LEFT,)),
    ("plus", (LEFT, LOWER)),
    ("base", (None, LOWER, LEFT, LEFT)),
    ("plus", (LOWER, None, None, LEFT)),
]
PLAIN = [("", 0), ("base", 1), ("plus", 1), ("base", 3), ("plus", 4)]
BACKENDS = ("torch", "packed", "openvino", "onnxruntime")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = TinySettings(adapters=("base", "plus"))
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "model", settings)


def made(name: str, root: Path) -> Backend:
    if name in ("torch", "packed"):
        return TorchBackend(
            load_model(root, adapter="base"), TorchSettings(buckets=BUCKETS, packed=name == "packed")
        )
    return CompiledBackend(exported(root, "base"), make_runtime(name), CompiledSettings(buckets=BUCKETS))


def rows_of(backend: Backend) -> tuple[list[RowConditioning], list[RowConditioning]]:
    """Return rows without regions and rows with them."""
    generator = torch.Generator().manual_seed(0)
    prompts = backend.encode_prompts(["a portrait", "a red hat"])

    def tokens(adapter: str, count: int) -> list[torch.Tensor]:
        shape = (count, backend.facts.adapter(adapter).tokens, backend.facts.token_width)
        return list(torch.randn(shape, generator=generator))

    plain = [row_of(backend, prompts[0], *tokens(name, count), adapter=name) for name, count in PLAIN]
    regional = []
    for name, regions in REGIONS:
        row = row_of(backend, prompts[1], *tokens(name, len(regions)), adapter=name)
        placed = [replace(each, region=region) for each, region in zip(row.references, regions, strict=True)]
        regional.append(replace(row, references=tuple(placed)))
    return plain, regional


@pytest.mark.parametrize("name", BACKENDS)
def test_rows_are_the_same_alone_and_in_any_company(root: Path, name: str) -> None:
    backend = made(name, root)
    plain, regional = rows_of(backend)
    count = len(plain) + len(regional)
    sample = torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    step = torch.linspace(1, 999, count)
    # On torch the bits depend on the bucket; compiled backends run a lone row in the smallest.
    least = BUCKET if name in ("torch", "packed") else 1

    def alone(slots: list[int], first: int) -> list[torch.Tensor]:
        return [
            backend.predict_noise([slot], sample[i : i + 1], step[i : i + 1], least)[0]
            for i, slot in enumerate(slots, start=first)
        ]

    slots = [backend.place(row) for row in plain]
    # Before the backend has ever seen a region.
    expected = alone(slots, 0)
    slots += [backend.place(row) for row in regional]
    expected += alone(slots[len(plain) :], len(plain))
    assert len({float(noise.sum()) for noise in expected}) == count
    order = random.Random(0)
    for _ in range(10):
        chosen = order.sample(range(count), order.randint(1, BUCKET))
        found = backend.predict_noise([slots[i] for i in chosen], sample[chosen], step[chosen], BUCKET)
        for noise, index in zip(found, chosen, strict=True):
            assert torch.equal(noise, expected[index])
    # A slot forgets its regions.
    backend.release(slots[len(plain)])
    slot = backend.place(plain[1])
    assert slot == slots[len(plain)]
    (again,) = backend.predict_noise([slot], sample[1:2], step[1:2], least)
    assert torch.equal(again, expected[1])


@pytest.mark.parametrize("name", BACKENDS)
def test_a_region_of_the_whole_picture_is_none_of_one_reference(root: Path, name: str) -> None:
    backend = made(name, root)
    row = rows_of(backend)[0][1]
    (reference,) = row.references
    slots = [
        backend.place(row),
        backend.place(replace(row, references=(replace(reference, region=WHOLE),))),
        backend.place(replace(row, references=(replace(reference, region=LEFT),))),
    ]
    sample = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)).repeat(3, 1, 1, 1)
    plain, same, other = backend.predict_noise(slots, sample, torch.full((3,), 500.0), BUCKET)
    torch.testing.assert_close(same, plain, rtol=0, atol=5e-6)
    assert (other - plain).abs().max() > 1e-3


class RecordingRuntime:
    """Notes which graphs are compiled."""

    def __init__(self, name: str) -> None:
        self._runtime = make_runtime(name)
        self.name, self.device = name, self._runtime.device
        self.graphs: list[str] = []

    def pairs(self, rows: int) -> Pairs:
        return self._runtime.pairs(rows)

    def compile(
        self, export: ExportDirectory, graph: str, shapes: Mapping[str, Shape], *, paired: bool = False
    ) -> CompiledGraph:
        self.graphs.append(graph)
        return self._runtime.compile(export, graph, shapes, paired=paired)


def test_the_graph_for_regions_is_compiled_when_the_first_comes(root: Path) -> None:
    runtime = RecordingRuntime("openvino")
    backend = CompiledBackend(exported(root, "base"), runtime, CompiledSettings(buckets=BUCKETS))
    plain, regional = rows_of(backend)
    slots = [backend.place(row) for row in (plain[0], plain[1], *regional[:2])]
    sample, step = torch.zeros(4, 4, 8, 8), torch.full((4,), 500.0)
    backend.predict_noise(slots[:2], sample[:2], step[:2], 2)
    assert REGIONAL not in runtime.graphs
    for rows in (2, 4):
        backend.predict_noise(slots[-rows:], sample[:rows], step[:rows], rows)
    # One for every bucket and size.
    assert runtime.graphs.count(REGIONAL) == 1


def test_the_graph_for_regions_has_no_weights_of_its_own(root: Path) -> None:
    graphs = exported(root, "base").manifest.graphs
    assert graphs[REGIONAL].data == graphs["unet"].data is not None


def test_an_export_without_that_graph_refuses_regions_alone(root: Path) -> None:
    export = exported(root, "base")
    graphs = {name: graph for name, graph in export.manifest.graphs.items() if name != REGIONAL}
    older = replace(export, manifest=replace(export.manifest, graphs=graphs))
    backend = CompiledBackend(older, make_runtime("onnxruntime"), CompiledSettings(buckets=BUCKETS))
    plain, regional = rows_of(backend)
    assert not backend.facts.regions
    with pytest.raises(RegionsUnsupportedError):
        backend.place(regional[0])
    assert backend.place(plain[1]) == 0
