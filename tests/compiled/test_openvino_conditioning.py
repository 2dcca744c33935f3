"""A UNet that reads its conditioning layer by layer predicts the same, and each row is laid out once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from openvino import opset13 as ops

from engine.backends.compiled.by_layer import ConditioningByLayer, LayerInput
from engine.backends.compiled.openvino_conditioning import read_by_layer
from tests.compiled import exported
from tests.compiled.graphs import ROWS, given, run, unet
from tests.tinymodels import build_tiny_model


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def test_a_unet_that_reads_by_layer_predicts_the_same(root: Path) -> None:
    packed, by_layer = unet(root), unet(root)
    assert read_by_layer(by_layer, ("kv_text", "kv_ip"), "f32")
    inputs = given(packed)
    rows = {name: torch.from_numpy(inputs.pop(name)) for name in ("kv_text", "kv_ip")}
    layers = [
        LayerInput.of(port.any_name, torch.zeros(list(port.shape)))
        for port in by_layer.inputs
        if "/" in port.any_name
    ]
    assert {each.packed for each in layers} == set(rows)
    assert len(layers) == 4 * len(exported(root).manifest.columns)
    ConditioningByLayer(layers).hold(rows, range(ROWS))
    laid_out = {
        f"{each.packed}/{each.first}/{'keys' if each.keys else 'values'}": each.memory.numpy()
        for each in layers
    }
    expected = run(packed, inputs | {name: tensor.numpy() for name, tensor in rows.items()})
    np.testing.assert_allclose(run(by_layer, inputs | laid_out), expected, rtol=0, atol=1e-6)


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
