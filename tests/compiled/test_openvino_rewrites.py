"""What is rewritten before OpenVINO compiles a graph computes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
import torch
from openvino import opset13 as ops

from engine.backends.compiled.by_layer import ConditioningByLayer, LayerInput
from engine.backends.compiled.openvino_rewrites import read_by_layer, spread_group_norms, static
from tests.compiled import exported
from tests.tinymodels import build_tiny_model

ROWS = 3


def unet(root: Path) -> Any:
    """Read the tiny UNet for three rows."""
    path, entry = exported(root).graph("unet")
    model = openvino.Core().read_model(path)
    named = {"rows": ROWS, "height": 8, "width": 8}
    free = iter((8, 8))
    shapes: dict[str, list[int]] = {}
    for spec in entry.inputs:
        sizes = [size if isinstance(size, int) else named.get(size) for size in spec.shape]
        shapes[spec.name] = [
            ROWS if place == 0 else size or (next(free, 4) if spec.name == "sample" else 4)
            for place, size in enumerate(sizes)
        ]
    model.reshape(shapes)
    assert static(model)
    return model


def run(model: Any, inputs: dict[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    compiled = openvino.Core().compile_model(
        model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    )
    found: np.ndarray[Any, Any] = compiled(inputs)[0]
    return found


def normalised(shape: list[int], groups: int) -> Any:
    x = ops.parameter(shape, openvino.Type.f32)
    x.output(0).set_names({"x"})
    channels = shape[1]
    weight = np.linspace(0.5, 2.0, channels, dtype=np.float32)
    bias = np.linspace(-1.0, 1.0, channels, dtype=np.float32)
    return openvino.Model([ops.group_normalization(x, weight, bias, groups, 1e-5)], [x], "norm")


@pytest.mark.parametrize("shape", [[2, 12, 4, 6], [3, 8, 10]], ids=["picture", "sequence"])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("mean", [0.0, 300.0])
def test_a_group_norm_is_that_of_torch(shape: list[int], groups: int, mean: float) -> None:
    model = normalised(shape, groups)
    weight = torch.linspace(0.5, 2.0, shape[1])
    bias = torch.linspace(-1.0, 1.0, shape[1])
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + mean
    expected = torch.nn.functional.group_norm(x.double(), groups, weight.double(), bias.double(), 1e-5)
    assert spread_group_norms(model) == 1
    assert not [op for op in model.get_ops() if op.get_type_name() == "GroupNormalization"]
    found = torch.from_numpy(run(model, {"x": x.numpy()}))
    # float32 holds 300 to 1.5e-5 of its own.
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5 if mean == 0 else 2e-4)


def test_a_graph_without_group_norms_is_left_alone() -> None:
    x = ops.parameter([1, 2], openvino.Type.f32)
    assert spread_group_norms(openvino.Model([ops.relu(x)], [x], "plain")) == 0


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def test_a_unet_that_reads_by_layer_predicts_the_same(root: Path) -> None:
    packed, by_layer = unet(root), unet(root)
    assert read_by_layer(by_layer, ("kv_text", "kv_ip"), "f32")
    generator = np.random.default_rng(0)
    inputs = {
        port.any_name: generator.standard_normal(list(port.shape)).astype(port.element_type.to_dtype())
        for port in packed.inputs
    }
    rows = {name: torch.from_numpy(inputs.pop(name)) for name in ("kv_text", "kv_ip")}
    layers = [
        LayerInput.of(port.any_name, torch.zeros(list(port.shape)))
        for port in by_layer.inputs
        if "/" in port.any_name
    ]
    assert {each.packed for each in layers} == set(rows)
    assert len(layers) == 4 * len(exported(root).manifest.columns)
    ConditioningByLayer(layers).hold(rows, range(ROWS))
    given = {
        f"{each.packed}/{each.first}/{'keys' if each.keys else 'values'}": each.memory.numpy()
        for each in layers
    }
    expected = run(packed, inputs | {name: tensor.numpy() for name, tensor in rows.items()})
    np.testing.assert_allclose(run(by_layer, inputs | given), expected, rtol=0, atol=1e-6)


def test_a_graph_that_uses_its_conditioning_in_another_way_keeps_it_packed() -> None:
    kv = ops.parameter([1, 4, 8], openvino.Type.f32)
    kv.output(0).set_names({"kv_text"})
    model = openvino.Model([ops.relu(kv)], [kv], "other")
    assert not read_by_layer(model, ("kv_text",), "f32")
    assert [port.any_name for port in model.inputs] == ["kv_text"]


def test_a_row_is_laid_out_once_for_its_life() -> None:
    memory = {part: torch.full((2, 2, 3, 3), torch.nan) for part in ("keys", "values")}
    layers = [
        LayerInput.of(f"kv/{first}/{part}", memory[part]) for part, first in (("keys", 0), ("values", 6))
    ]
    held = ConditioningByLayer(layers)
    rows = torch.arange(2 * 3 * 12.0).view(2, 3, 12)
    held.hold({"kv": rows}, ["a", None])
    assert held.writes == 1
    assert memory["keys"][1].isnan().all(), "padding is not laid out"
    assert torch.equal(memory["keys"][0, 1], rows[0, :, 3:6].T)
    assert torch.equal(memory["values"][0, 1], rows[0, :, 9:12])
    held.hold({"kv": rows + 100}, ["a", "b"])
    assert held.writes == 2
    assert torch.equal(memory["keys"][0, 0], rows[0, :, :3].T), "the row of the same key was not touched"
    assert torch.equal(memory["values"][1, 0], rows[1, :, 6:9] + 100)
    held.hold({"kv": rows}, ["b", "b"])
    assert held.writes == 3
