"""What is rewritten before OpenVINO compiles a graph computes the same."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openvino
import pytest
import torch
from openvino import opset13 as ops

from engine.backends.compiled import openvino_rewrites
from engine.backends.compiled.by_layer import ConditioningByLayer, LayerInput
from engine.backends.compiled.openvino_rewrites import (
    CHANNELS,
    cut_before_linear,
    read_by_layer,
    silu_by_tanh,
    spread_group_norms,
    static,
    widen_convolutions,
)
from engine.backends.compiled.openvino_runtime import OpenVINORuntime, OpenVINOSettings, best_dtype
from tests.compiled import exported
from tests.tinymodels import build_tiny_model

ROWS = 3
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}


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


def run(model: Any, inputs: dict[str, np.ndarray[Any, Any]], precision: str = "f32") -> np.ndarray[Any, Any]:
    compiled = openvino.Core().compile_model(model, "CPU", EXACT | {"INFERENCE_PRECISION_HINT": precision})
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


def kinds(model: Any) -> Counter[str]:
    """Count the operators by type."""
    return Counter(op.get_type_name() for op in model.get_ops())


def given(model: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Draw every input."""
    generator = np.random.default_rng(0)
    return {
        port.any_name: generator.standard_normal(list(port.shape)).astype(port.element_type.to_dtype())
        for port in model.inputs
    }


def gated(cuts: list[tuple[int, int, int, int]], *, read_whole: bool = False, turned: bool = True) -> Any:
    """A linear layer of six inputs and eight outputs, cut as (first, end, step, axis) say."""
    generator = np.random.default_rng(1)
    x = ops.parameter([2, 8, 6], openvino.Type.f32)
    x.output(0).set_names({"x"})
    weight = generator.standard_normal((8, 6) if turned else (6, 8), dtype=np.float32)
    bias = generator.standard_normal((1, 1, 8), dtype=np.float32)
    whole = ops.add(ops.constant(bias), ops.matmul(x, ops.constant(weight), False, turned))
    parts = [
        ops.slice(whole, *([number] for number in (first, end, step)), axes=[axis])
        for first, end, step, axis in cuts
    ]
    return openvino.Model([*parts, *([ops.relu(whole)] if read_whole else [])], [x], "gated")


@pytest.mark.parametrize("last", [2, -1])
def test_a_layer_that_is_cut_becomes_two(last: int) -> None:
    cuts = [(0, 3, 1, last), (3, 8, 1, last)]
    whole, apart = gated(cuts), gated(cuts)
    assert cut_before_linear(apart) == 2
    assert (kinds(apart)["MatMul"], kinds(apart)["Slice"]) == (2, 0)
    x = given(whole)
    core = openvino.Core()
    expected, found = (core.compile_model(model, "CPU", EXACT)(x) for model in (whole, apart))
    for number in range(2):
        np.testing.assert_allclose(found[number], expected[number], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        gated([(0, 4, 1, 2), (4, 8, 1, 2)], read_whole=True),
        gated([(0, 4, 1, 2)]),
        gated([(0, 4, 1, 1), (4, 8, 1, 1)]),
        gated([(0, 8, 2, 2), (1, 8, 2, 2)]),
        gated([(0, 4, 1, 2), (4, 8, 1, 2)], turned=False),
        gated([(0, 5, 1, 2), (4, 8, 1, 2)]),
    ],
    ids=[
        "read whole too",
        "one cut",
        "another axis",
        "in steps of two",
        "weights the other way round",
        "cuts that overlap",
    ],
)
def test_other_layers_are_left_alone(model: Any) -> None:
    before = kinds(model)
    assert cut_before_linear(model) == 0
    assert kinds(model)["MatMul"] == before["MatMul"]


def test_a_large_layer_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    cuts = [(0, 4, 1, 2), (4, 8, 1, 2)]
    monkeypatch.setattr(openvino_rewrites, "LARGEST_PARTED_BYTES", 8 * 6 * 4 - 1)
    assert cut_before_linear(gated(cuts)) == 0
    monkeypatch.setattr(openvino_rewrites, "LARGEST_PARTED_BYTES", 8 * 6 * 4)
    assert cut_before_linear(gated(cuts)) == 2


def activated(kind: str) -> Any:
    x = ops.parameter([1, 2001], openvino.Type.f32)
    x.output(0).set_names({"x"})
    sigmoid = ops.sigmoid(x)
    halves = ops.split(ops.concat([x, x], 1), 1, 2)
    results = {
        "sigmoid first": lambda: [ops.multiply(sigmoid, x)],
        "x first": lambda: [ops.multiply(x, sigmoid)],
        "gate": lambda: [ops.multiply(sigmoid, ops.relu(x))],
        "read twice": lambda: [ops.multiply(x, sigmoid), ops.relu(sigmoid)],
        "sum": lambda: [ops.add(x, sigmoid)],
        "halves of one": lambda: [ops.multiply(ops.sigmoid(halves.output(0)), halves.output(1))],
    }[kind]()
    return openvino.Model(results, [x], kind)


@pytest.mark.parametrize("kind", ["sigmoid first", "x first"])
def test_silu_is_that_of_torch(kind: str) -> None:
    model = activated(kind)
    assert silu_by_tanh(model) == 1
    assert (kinds(model)["Tanh"], kinds(model)["Sigmoid"]) == (1, 0)
    x = np.linspace(-100, 100, 2001, dtype=np.float32)[None]
    expected = torch.nn.functional.silu(torch.from_numpy(x).double())
    # Relative to the size of x: below -10 the result is far smaller, and 0 is as good.
    error = (torch.from_numpy(run(model, {"x": x})).double() - expected).abs()
    assert bool((error <= 2e-6 * (1 + torch.from_numpy(x).abs())).all())


@pytest.mark.parametrize("kind", ["gate", "read twice", "sum", "halves of one"])
def test_other_sigmoids_are_left_alone(kind: str) -> None:
    assert silu_by_tanh(activated(kind)) == 0


def convolved(channels: int) -> Any:
    x = ops.parameter([2, channels, 6, 5], openvino.Type.f32)
    x.output(0).set_names({"x"})
    weight = np.random.default_rng(2).standard_normal((7, channels, 3, 3), dtype=np.float32)
    convolution = ops.convolution(x, ops.constant(weight), [1, 1], [1, 1], [1, 1], [1, 1])
    return openvino.Model([convolution], [x], "convolved")


@pytest.mark.parametrize("channels", [4, 12, 20])
def test_a_narrow_convolution_gets_channels_of_zeros(channels: int) -> None:
    narrow, wide = convolved(channels), convolved(channels)
    assert widen_convolutions(wide) == 1
    x = given(narrow)
    np.testing.assert_allclose(run(wide, x), run(narrow, x), rtol=0, atol=1e-5)


def test_a_wide_convolution_is_left_alone() -> None:
    assert widen_convolutions(convolved(2 * CHANNELS)) == 0


def test_a_unet_with_all_rewrites_predicts_the_same(root: Path) -> None:
    exact, rewritten = unet(root), unet(root)
    before = kinds(exact)
    assert before["Sigmoid"] > 0 and before["Gelu"] > 0
    OpenVINORuntime(OpenVINOSettings(precision="bf16", threads=2, lanes=2))._for_bfloat16(rewritten)
    after = kinds(rewritten)
    assert after["Sigmoid"] == after["GroupNormalization"] == 0
    assert after["MatMul"] == before["MatMul"] + before["Gelu"], "every GEGLU is two products"
    widths = {
        op.input_value(1).get_shape()[1] for op in rewritten.get_ops() if op.get_type_name() == "Convolution"
    }
    assert all(width % CHANNELS == 0 for width in widths)
    inputs = given(exact)
    np.testing.assert_allclose(run(rewritten, inputs), run(exact, inputs), rtol=0, atol=1e-5)


@pytest.mark.skipif(best_dtype() != "bfloat16", reason="this CPU does not compute in bfloat16")
@pytest.mark.parametrize("lanes", [1, 2])
def test_in_bfloat16_a_rewritten_unet_errs_about_as_exported(root: Path, lanes: int) -> None:
    exact, exported_, rewritten = unet(root), unet(root), unet(root)
    OpenVINORuntime(OpenVINOSettings(precision="bf16", threads=2, lanes=lanes))._for_bfloat16(rewritten)
    inputs = given(exact)
    wanted = run(exact, inputs)
    errors = [
        float(np.sqrt(((run(model, inputs, precision="bf16") - wanted) ** 2).mean()))
        for model in (exported_, rewritten)
    ]
    assert 0 < errors[1] <= 1.5 * errors[0], errors


@pytest.mark.parametrize(("precision", "rewritten"), [("bf16", True), ("f32", False)])
def test_only_bfloat16_is_rewritten(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: Literal["bf16", "f32"],
    *,
    rewritten: bool,
) -> None:
    seen: list[object] = []
    monkeypatch.setattr(OpenVINORuntime, "_for_bfloat16", lambda _, model: seen.append(model))
    runtime = OpenVINORuntime(OpenVINOSettings(precision=precision, threads=1))
    runtime.compile(exported(root), "unet", {port.any_name: tuple(port.shape) for port in unet(root).inputs})
    runtime.compile(exported(root), "text_kv", {"embedding": (1, 4, 32)})
    assert len(seen) == int(rewritten), "the UNet, and nothing that stays in float32"


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
