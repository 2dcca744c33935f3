"""What two rows of an image share is found, computed for half of the rows, and left alone where it cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import openvino
import pytest
import torch
from openvino import opset13 as ops
from structlog.testing import capture_logs

from engine.backends.base import RowConditioning
from engine.backends.compiled.backend import CompiledBackend, CompiledSettings
from engine.backends.compiled.graphs import Graphs
from engine.backends.compiled.openvino_runtime import OpenVINORuntime, OpenVINOSettings
from engine.backends.compiled.openvino_trunk import share_trunk
from engine.backends.compiled.runtime import Tensors
from engine.backends.compiled.sharing import SharedTrunk
from tests.compiled import exported, make_runtime
from tests.compiled.graphs import given, run, unet
from tests.tinymodels import build_tiny_model, build_tiny_xl


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def alike(inputs: dict[str, Any]) -> dict[str, Any]:
    """Give the rows of each image the same latents and timestep."""
    return {
        name: np.concatenate([array[: len(array) // 2]] * 2) if name in ("sample", "timestep") else array
        for name, array in inputs.items()
    }


def convolutions(model: Any) -> list[int]:
    return [
        op.get_output_shape(0)[0] for op in model.get_ordered_ops() if op.get_type_name() == "Convolution"
    ]


def test_all_before_the_first_attention_is_computed_for_one_row_of_each_image(root: Path) -> None:
    whole, shared = unet(root, rows=4), unet(root, rows=4)
    assert share_trunk(shared)
    rows = convolutions(shared)
    assert rows[0] == 2 and rows[-1] == 4
    assert rows == sorted(rows), "once two, then four"
    inputs = alike(given(whole))
    np.testing.assert_array_equal(run(shared, inputs), run(whole, inputs))


def test_the_other_rows_latents_are_not_read(root: Path) -> None:
    shared = unet(root, rows=4)
    assert share_trunk(shared)
    inputs = given(shared)
    other = {**inputs, "sample": inputs["sample"].copy()}
    other["sample"][2:] = np.nan
    np.testing.assert_array_equal(run(shared, other), run(shared, inputs))


def test_an_odd_batch_is_left_alone(root: Path) -> None:
    assert not share_trunk(unet(root, rows=3))


def model_of(body: Callable[[Any, Any], Any]) -> Any:
    sample, other = (ops.parameter([4, 6], openvino.Type.f32) for _ in range(2))
    sample.output(0).set_names({"sample"})
    other.output(0).set_names({"kv_text"})
    return openvino.Model([body(sample, other)], [sample, other], "body")


def test_a_graph_that_reads_its_conditioning_at_once_has_no_trunk() -> None:
    assert not share_trunk(model_of(ops.add))


def test_what_one_operator_alone_reads_is_left_to_it() -> None:
    """They may be fused, and rounded once: with a trunk between them, twice."""

    def body(sample: Any, other: Any) -> Any:
        twice = ops.relu(sample)
        return ops.add(ops.multiply(ops.sqrt(twice), other), twice)

    shared = model_of(body)
    assert share_trunk(shared)
    rows = {op.get_type_name(): op.get_output_shape(0)[0] for op in shared.get_ops()}
    assert (rows["Relu"], rows["Sqrt"]) == (2, 4)


@pytest.mark.parametrize("target", [[4, 2, 3], [-1, 2, 3], [2, 12], [24]])
def test_a_shape_that_names_the_rows_is_changed_and_one_that_mixes_them_is_refused(target: list[int]) -> None:
    def body(sample: Any, other: Any) -> Any:
        shaped = ops.reshape(ops.relu(sample), target, special_zero=False)
        value = ops.reshape(shaped, [4, 6], special_zero=False)
        return ops.add(ops.multiply(value, other), value)

    shared, whole = model_of(body), model_of(body)
    assert share_trunk(shared) == (len(target) == 3)
    if len(target) == 3:
        inputs = alike(given(whole))
        np.testing.assert_array_equal(run(shared, inputs), run(whole, inputs))


@pytest.mark.parametrize(
    ("lanes", "rows", "pairs"),
    [
        (1, 4, [(0, 2), (1, 3)]),
        (1, 3, []),
        (2, 8, [(0, 2), (1, 3), (4, 6), (5, 7)]),
        # Two lanes of three rows: a lane for all of them would take longer than what is shared saves.
        (2, 6, []),
        # A trunk of one row has other bits.
        (1, 2, []),
        (2, 4, []),
    ],
)
def test_pairs_lie_within_a_lane(lanes: int, rows: int, pairs: list[tuple[int, int]]) -> None:
    assert list(OpenVINORuntime(OpenVINOSettings(threads=lanes, lanes=lanes)).pairs(rows)) == pairs


@pytest.mark.parametrize(
    ("images", "units"),
    [
        (None, []),
        ([0, 1, 0, 1], [[0, 2], [1, 3]]),
        ([0, 1, 2, 1], [[0], [1, 3], [2]]),
        ([0, 1, 2, 3, 1], [[0], [1, 4], [2], [3]]),
        ([0, 1, 2, 3, 4, 1], []),
        ([0, 1, 2], []),
    ],
)
def test_a_unit_is_the_rows_of_an_image(images: list[int] | None, units: list[list[int]]) -> None:
    sharing = SharedTrunk(cast(Graphs, None), 8, [(0, 4), (1, 5), (2, 6), (3, 7)])
    assert sharing.units(images, 8) == units
    assert sharing.units(images, 2) == []


def test_nothing_is_shared_where_memory_was_not_given_for_speed() -> None:
    assert not OpenVINORuntime(OpenVINOSettings(threads=2)).pairs(8)


def tick(backend: CompiledBackend, images: list[int] | None, rows: int, bucket: int = 8) -> torch.Tensor:
    """Run a tick of rows whose latents are those of their images, or all alike."""
    (encoded,) = backend.encode_prompts(["a sailor"])
    slots = [backend.place(RowConditioning(prompt=encoded, size=(64, 64))) for _ in range(rows)]
    channels, side = backend.facts.latent_channels, backend.facts.default_height // backend.facts.latent_scale
    drawn = torch.randn(rows, channels, side, side, generator=torch.Generator().manual_seed(0))
    sample = drawn[images or [0] * rows]
    noise = backend.predict_noise(slots, sample, torch.full((rows,), 500.0), bucket, images)
    for slot in slots:
        backend.release(slot)
    return noise


class Recording:
    """What graphs of the UNet were run: whether each was one of pairs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paired: list[bool] = []
        run = Graphs.run

        def recording(graphs: Graphs, graph: str, inputs: Tensors, **options: Any) -> dict[str, torch.Tensor]:
            if graph == "unet":
                self.paired.append(options.get("paired", False))
            return run(graphs, graph, inputs, **options)

        monkeypatch.setattr(Graphs, "run", recording)


def backend_of(root: Path) -> CompiledBackend:
    return CompiledBackend(exported(root), make_runtime("openvino"), CompiledSettings(buckets=(2, 8)))


def test_a_bucket_shares_once_both_of_its_graphs_were_seen_to_agree(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, ran = backend_of(root), Recording(monkeypatch)
    tick(backend, [0, 1, 0, 1], 4)
    assert ran.paired == [True, False, True]
    tick(backend, [0, 1, 2, 3, 0, 1, 2, 3], 8)
    assert ran.paired[3:] == [True]


@pytest.mark.parametrize(
    ("images", "bucket", "shares"),
    [
        ([0, 1, 2, 3, 0], 8, True),
        ([0, 1, 2, 3, 4, 0], 8, False),
        ([0, 1, 2, 3], 8, False),
        ([0, 0], 2, False),
        (None, 8, False),
    ],
    ids=["seats-for-all", "more-images-than-seats", "none-is-guided", "no-seats", "unknown"],
)
def test_a_tick_shares_where_every_image_has_a_seat(
    root: Path, images: list[int] | None, bucket: int, monkeypatch: pytest.MonkeyPatch, *, shares: bool
) -> None:
    backend = backend_of(root)
    tick(backend, [0, 0], 2)
    ran = Recording(monkeypatch)
    tick(backend, images, 4 if images is None else len(images), bucket)
    assert ran.paired == [shares]


def test_a_bucket_whose_first_tick_is_of_single_rows_never_shares(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where requests are not guided unless they say so: nothing is compiled for them once the engine serves."""
    backend, ran = backend_of(root), Recording(monkeypatch)
    tick(backend, [0, 1, 2], 3)
    tick(backend, [0, 1, 0, 1], 4)
    assert ran.paired == [False, False]


def test_a_first_tick_that_raises_decides_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = backend_of(root)
    run = Graphs.run

    def raising(graphs: Graphs, graph: str, inputs: Tensors, **options: Any) -> dict[str, torch.Tensor]:
        if graph == "unet" and not options.get("paired"):
            raise RuntimeError("out of memory")
        return run(graphs, graph, inputs, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Graphs, "run", raising)
        with pytest.raises(RuntimeError, match="out of memory"):
            tick(backend, [0, 1, 0, 1], 4)
    ran = Recording(monkeypatch)
    tick(backend, [0, 1, 0, 1], 4)
    assert ran.paired == [True, False, True]


def test_large_weights_are_not_held_twice(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.backends.compiled.backend.LARGEST_SHARED_BYTES", 1000)
    backend, ran = backend_of(root), Recording(monkeypatch)
    tick(backend, [0, 1, 0, 1], 4)
    assert ran.paired == [False]


def test_both_graphs_are_the_same_to_the_bit_when_they_are_read_from_the_cache(
    root: Path, tmp_path: Path
) -> None:
    noise = []
    for cache in (None, tmp_path, tmp_path):
        settings = OpenVINOSettings(precision="bf16", threads=1, cache=cache)
        backend = CompiledBackend(exported(root), OpenVINORuntime(settings), CompiledSettings(buckets=(2, 8)))
        noise += [tick(backend, [0, 1, 2, 0, 1, 2], 6), tick(backend, [0, 1, 2, 3, 4, 0], 6)[:5]]
        noise[-2] = noise[-2][[0, 1, 2]]
    for other in noise[2:]:
        assert torch.equal(other, noise[len(other) == 5])


def test_a_bucket_whose_graphs_differ_in_a_bit_shares_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = Recording(monkeypatch)
    recording = Graphs.run

    def differing(graphs: Graphs, graph: str, inputs: Tensors, **options: Any) -> dict[str, torch.Tensor]:
        outputs = recording(graphs, graph, inputs, **options)
        if options.get("paired"):
            outputs["noise"].view(-1)[0] += 1e-6
        return outputs

    monkeypatch.setattr(Graphs, "run", differing)
    backend = backend_of(root)
    with capture_logs() as logs:
        tick(backend, [0, 1, 0, 1], 4)
        tick(backend, [0, 1, 0, 1], 4)
    assert ran.paired == [True, False, False, False]
    assert sorted(key[0] for key in backend._graphs._compiled["unet"]) == [False], "and holds one"
    assert [line["rows"] for line in logs if "last bits" in line["event"]] == [8]


def test_a_model_whose_graph_has_no_trunk_shares_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.backends.compiled.openvino_runtime.share_trunk", lambda _: False)
    ran = Recording(monkeypatch)
    backend = backend_of(root)
    with capture_logs() as logs:
        tick(backend, [0, 1, 0, 1], 4)
        tick(backend, [0, 1, 0, 1], 4)
    assert ran.paired == [True, False, False]
    assert len([line for line in logs if "can be compiled" in line["event"]]) == 1


def test_a_model_whose_rows_differ_in_their_embedding_shares_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, ran = backend_of(build_tiny_xl(tmp_path / "xl")), Recording(monkeypatch)
    tick(backend, [0, 1, 0, 1], 4)
    assert ran.paired == [False]
