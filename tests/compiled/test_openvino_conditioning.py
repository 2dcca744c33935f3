"""A UNet that reads its conditioning layer by layer predicts the same, and each row is laid out once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
import torch
from openvino import opset13 as ops

from engine.backends.compiled.by_layer import ConditioningByLayer, PackedRow, layer_input
from engine.backends.compiled.openvino_attention import join_attention
from engine.backends.compiled.openvino_conditioning import read_by_layer
from engine.backends.compiled.openvino_surgery import only_reader
from engine.models.projection import scale_values
from tests.compiled import exported
from tests.compiled.graphs import ROWS, given, run, unet
from tests.tinymodels import build_tiny_model


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def conditioned(model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """Lay out the rows of packed inputs as a graph that reads by layer has them."""
    memory = {port.any_name: torch.zeros(list(port.shape)) for port in model.inputs if "/" in port.any_name}
    held = ConditioningByLayer([layer_input(name, tensor) for name, tensor in memory.items()])
    held.hold({name: torch.from_numpy(array) for name, array in inputs.items()}, range(ROWS))
    names = {port.any_name for port in model.inputs} - memory.keys()
    return {
        **{name: inputs[name] for name in names},
        **{name: tensor.numpy() for name, tensor in memory.items()},
    }


def test_a_unet_that_reads_by_layer_predicts_the_same(root: Path) -> None:
    packed, by_layer = unet(root), unet(root)
    assert read_by_layer(by_layer, ("kv_text", "kv_ip"), "f32")
    names = [port.any_name for port in by_layer.inputs if "/" in port.any_name]
    assert {name.partition("/")[0] for name in names} == {"kv_text", "kv_ip"}
    assert len(names) == 4 * len(exported(root).manifest.columns)
    inputs = given(packed)
    found = run(by_layer, conditioned(by_layer, inputs))
    np.testing.assert_allclose(found, run(packed, inputs), rtol=0, atol=1e-6)


def masked(inputs: dict[str, Any]) -> dict[str, Any]:
    """Give the rows of a batch all reference tokens, some of them, and zeros for none."""
    mask = np.zeros_like(inputs["ip_mask"])
    mask[1, 2:] = -np.inf
    kv_ip = inputs["kv_ip"].copy()
    kv_ip[2] = 0
    return inputs | {"ip_mask": mask, "kv_ip": kv_ip}


def joined(root: Path) -> Any:
    model = unet(root)
    assert read_by_layer(model, ("kv_text", "kv_ip"), "f32")
    assert join_attention(model) == len(exported(root).manifest.columns)
    return model


def test_a_unet_whose_attentions_are_joined_predicts_the_same(root: Path) -> None:
    packed, model = unet(root), joined(root)
    names = {port.any_name for port in model.inputs}
    assert {name.partition("/")[0] for name in names} == {"sample", "timestep", "kv_text+kv_ip"}
    inputs = masked(given(packed))
    found = run(model, conditioned(model, inputs))
    np.testing.assert_allclose(found, run(packed, inputs), rtol=0, atol=2e-6)


@pytest.mark.parametrize("shift", [-300, 300])
def test_a_shift_of_all_scores_changes_nothing(root: Path, shift: int) -> None:
    """No key that is nobody's may take the weight: not those that fill up, nor those that a mask hides."""
    packed, model = unet(root), joined(root)
    inputs = masked(given(packed))
    generator = np.random.default_rng(1)
    for layer in exported(root).manifest.columns:
        keys = shift * generator.standard_normal(layer.width).astype(np.float32)
        for name in ("kv_text", "kv_ip"):
            inputs[name][..., layer.start : layer.start + layer.width] += keys
    inputs["kv_ip"][inputs["ip_mask"] != 0] = 0
    found = run(model, conditioned(model, inputs))
    np.testing.assert_allclose(found, run(packed, inputs), rtol=0, atol=1e-3)


def test_an_attention_beside_whose_scores_the_others_vanish_is_finite(root: Path) -> None:
    packed, model = unet(root), joined(root)
    inputs = masked(given(packed))
    loud = inputs | {"kv_ip": 1e4 * inputs["kv_ip"]}
    assert np.isfinite(run(model, conditioned(model, loud))).all()


def test_a_reference_of_scale_0_is_none_to_the_bit(root: Path) -> None:
    model = joined(root)
    inputs = masked(given(unet(root)))
    silent, none = inputs["kv_ip"].copy(), np.zeros_like(inputs["kv_ip"])
    columns = exported(root).manifest.columns
    scale_values(torch.from_numpy(silent), columns, [0.0] * len(columns))
    assert silent[1].any()
    found, expected = (run(model, conditioned(model, inputs | {"kv_ip": kv})) for kv in (silent, none))
    np.testing.assert_array_equal(found, expected)


Change = Callable[[Any, Any, Any], None]
"""What is done, in a model, to an attention's product for scores and to its softmax."""


def another_query(model: Any, scores: Any, softmax: Any) -> None:
    scores.input(0).replace_source_output(ops.negative(scores.input_value(0)).output(0))


def another_mask(model: Any, scores: Any, softmax: Any) -> None:
    mask = ops.constant(np.zeros((ROWS, 1, 1, 4), np.float32))
    softmax.input(0).replace_source_output(ops.add(scores, mask).output(0))


def the_references_mask(model: Any, scores: Any, softmax: Any) -> None:
    mask = ops.unsqueeze(model.input("ip_mask"), np.array([1, 2]))
    softmax.input(0).replace_source_output(ops.add(scores, mask).output(0))


def no_mask(model: Any, scores: Any, softmax: Any) -> None:
    softmax.input(0).replace_source_output(scores.output(0))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("kv_text", another_query),
        ("kv_text", another_mask),
        ("kv_text", the_references_mask),
        ("kv_ip", another_query),
        ("kv_ip", another_mask),
        ("kv_ip", no_mask),
    ],
)
def test_an_attention_that_is_not_an_adapters_stays_as_it_is(root: Path, name: str, change: Change) -> None:
    model, changed = unet(root), 0
    assert read_by_layer(model, ("kv_text", "kv_ip"), "f32")
    for port in [
        port for port in model.inputs if port.any_name.startswith(name) and "/keys" in port.any_name
    ]:
        (read,) = port.get_target_inputs()
        (scored,) = read.get_node().output(0).get_target_inputs()
        scores = scored.get_node()
        (weighed,) = scores.output(0).get_target_inputs()
        after = weighed.get_node()
        softmax = after if after.get_type_name() == "Softmax" else only_reader(after)
        change(model, scores, softmax)
        changed += 1
    assert changed == len(exported(root).manifest.columns)
    names = {port.any_name for port in model.inputs}
    assert join_attention(model) == 0
    assert {port.any_name for port in model.inputs} == names


def test_a_graph_without_references_keeps_its_attentions() -> None:
    x = ops.parameter([1, 2], openvino.Type.f32)
    assert join_attention(openvino.Model([ops.add(x, x)], [x], "plain")) == 0


def test_a_graph_that_uses_its_conditioning_in_another_way_keeps_it_packed() -> None:
    kv = ops.parameter([1, 4, 8], openvino.Type.f32)
    kv.output(0).set_names({"kv_text"})
    model = openvino.Model([ops.relu(kv)], [kv], "other")
    assert not read_by_layer(model, ("kv_text",), "f32")
    assert [port.any_name for port in model.inputs] == ["kv_text"]


class Raising:
    def write(self, position: int, row: PackedRow) -> None:
        if row["kv"].max() > 100:
            raise RuntimeError("out of memory")


def test_a_row_that_another_one_overwrote_in_part_is_laid_out_again() -> None:
    memory = torch.zeros(1, 1, 3, 3)
    held = ConditioningByLayer([layer_input("kv/0/keys", memory), Raising()])
    row = torch.arange(9.0).view(1, 3, 3)
    held.hold({"kv": row}, ["a"])
    with pytest.raises(RuntimeError):
        held.hold({"kv": row + 200}, ["b"])
    held.hold({"kv": row}, ["a"])
    assert torch.equal(memory[0, 0], row[0].T)


def test_a_row_is_laid_out_once_for_its_life() -> None:
    memory = {part: torch.full((2, 2, 3, 3), torch.nan) for part in ("keys", "values")}
    layers = [layer_input(f"kv/{first}/{part}", memory[part]) for part, first in (("keys", 0), ("values", 6))]
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
