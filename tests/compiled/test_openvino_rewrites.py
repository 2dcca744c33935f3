"""What is rewritten before OpenVINO compiles a graph computes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import openvino
import pytest
import torch
from openvino import opset13 as ops

from engine.backends.compiled import openvino_rewrites, openvino_runtime
from engine.backends.compiled.openvino_core import shared_core
from engine.backends.compiled.openvino_rewrites import (
    CHANNELS,
    cut_before_linear,
    rewrite_for_fast_products,
    spread_group_norms,
    widen_convolutions,
)
from engine.backends.compiled.openvino_runtime import OpenVINORuntime, OpenVINOSettings, best_dtype
from tests.compiled import NEEDS_INT8, calibrated, exported
from tests.compiled.graphs import EXACT, given, kinds, run, unet
from tests.tinymodels import build_tiny_model


def normalised(shape: list[int], groups: int) -> Any:
    x = ops.parameter(shape, openvino.Type.f32)
    x.output(0).set_names({"x"})
    channels = shape[1]
    weight = np.linspace(0.5, 2.0, channels, dtype=np.float32)
    bias = np.linspace(-1.0, 1.0, channels, dtype=np.float32)
    return openvino.Model([ops.group_normalization(x, weight, bias, groups, 1e-5)], [x], "norm")


@pytest.mark.parametrize("shape", [[2, 12, 4, 6], [3, 8, 10]], ids=["picture", "sequence"])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("mean", [0.0, 30.0])
def test_a_group_norm_is_that_of_torch(shape: list[int], groups: int, mean: float) -> None:
    model = normalised(shape, groups)
    weight = torch.linspace(0.5, 2.0, shape[1])
    bias = torch.linspace(-1.0, 1.0, shape[1])
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + mean
    expected = torch.nn.functional.group_norm(x.double(), groups, weight.double(), bias.double(), 1e-5)
    assert spread_group_norms(model) == 1
    assert not [op for op in model.get_ops() if op.get_type_name() == "GroupNormalization"]
    found = torch.from_numpy(run(model, {"x": x.numpy()}))
    # A channel's centre is rounded, and a mean of 30 squared takes 10 of float32's 24 bits.
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5 if mean == 0 else 1e-3)


def test_an_openvino_that_cannot_keep_float32_keeps_its_group_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_rewrites, "keeps_float32", lambda: False)
    assert spread_group_norms(normalised([2, 12, 4, 6], 4)) == 0


@pytest.mark.parametrize("value", [0.0, 3.0, 100.0])
def test_a_group_of_equal_values_is_normalised_to_its_bias(value: float) -> None:
    model = normalised([2, 12, 4, 6], 4)
    assert spread_group_norms(model) == 1
    found = run(model, {"x": np.full((2, 12, 4, 6), value, dtype=np.float32)})
    expected = np.linspace(-1.0, 1.0, 12, dtype=np.float32)[None, :, None, None]
    # The sums leave a rounding of the value, which a deviation of almost 0 divides by, at most by sqrt(1e-5).
    np.testing.assert_allclose(
        found, np.broadcast_to(expected, found.shape), rtol=0, atol=1e-3 + 2e-4 * value
    )


def between_convolutions(side: int, *, spread: bool) -> Any:
    """A normalisation where it lies in a UNet: what the CPU computes in bfloat16 ends and begins with products."""
    x = ops.parameter([4, 96, side, side], openvino.Type.f32)
    x.output(0).set_names({"x"})
    same = ops.constant(np.eye(96, dtype=np.float32).reshape(96, 96, 1, 1))

    def convolved(value: Any) -> Any:
        return ops.convolution(value, same, [1, 1], [0, 0], [0, 0], [1, 1])

    weight, bias = np.linspace(0.5, 2.0, 96, dtype=np.float32), np.linspace(-1.0, 1.0, 96, dtype=np.float32)
    norm = ops.group_normalization(convolved(x), weight, bias, 32, 1e-5)
    model = openvino.Model([convolved(norm)], [x], "norm")
    if spread:
        assert spread_group_norms(model) == 1
    return model


@pytest.mark.skipif(best_dtype() != "bfloat16", reason="this CPU does not compute in bfloat16")
@pytest.mark.parametrize(("mean", "side"), [(0.0, 16), (1.0, 16), (10.0, 16), (100.0, 16), (10.0, 64)])
def test_in_bfloat16_a_spread_group_norm_errs_as_openvinos_own(mean: float, side: int) -> None:
    """Also where channels have means of many deviations, each its own: the sums are kept in float32."""
    generator = np.random.default_rng(0)
    means = mean * (1 + 0.01 * generator.standard_normal((4, 96, 1, 1)))
    x = torch.from_numpy((generator.standard_normal((4, 96, side, side)) + means).astype(np.float32))
    inputs = {"x": x.bfloat16().float().numpy()}
    exact = run(between_convolutions(side, spread=False), inputs)
    own, found = (
        np.abs(run(between_convolutions(side, spread=spread), inputs, precision="bf16") - exact)
        for spread in (False, True)
    )
    assert 0 < found.mean() <= 1.2 * own.mean()
    assert found.max() <= 2 * own.max()


def test_a_graph_without_group_norms_is_left_alone() -> None:
    x = ops.parameter([1, 2], openvino.Type.f32)
    assert spread_group_norms(openvino.Model([ops.relu(x)], [x], "plain")) == 0


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return calibrated(build_tiny_model(tmp_path_factory.mktemp("tiny") / "model"))


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
    core = shared_core()
    expected, found = (core.compile_model(model, "CPU", EXACT)(x) for model in (whole, apart))
    for number in range(2):
        np.testing.assert_allclose(found[number], expected[number], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("cuts", "layer"),
    [
        ([(0, 4, 1, 2), (4, 8, 1, 2)], {"read_whole": True}),
        ([(0, 4, 1, 2)], {}),
        ([(0, 4, 1, 1), (4, 8, 1, 1)], {}),
        ([(0, 8, 2, 2), (1, 8, 2, 2)], {}),
        ([(0, 4, 1, 2), (4, 8, 1, 2)], {"turned": False}),
        ([(0, 5, 1, 2), (4, 8, 1, 2)], {}),
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
def test_other_layers_are_left_alone(cuts: list[tuple[int, int, int, int]], layer: dict[str, bool]) -> None:
    model = gated(cuts, **layer)
    before = kinds(model)
    assert cut_before_linear(model) == 0
    assert kinds(model)["MatMul"] == before["MatMul"]


def test_a_large_layer_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    cuts = [(0, 4, 1, 2), (4, 8, 1, 2)]
    monkeypatch.setattr(openvino_rewrites, "LARGEST_PARTED_BYTES", 8 * 6 * 4 - 1)
    assert cut_before_linear(gated(cuts)) == 0
    monkeypatch.setattr(openvino_rewrites, "LARGEST_PARTED_BYTES", 8 * 6 * 4)
    assert cut_before_linear(gated(cuts)) == 2


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


@pytest.mark.parametrize(("polynomials", "error"), [(False, 1e-5), (True, 2e-3)])
def test_a_unet_with_all_rewrites_predicts_the_same(
    root: Path, error: float, monkeypatch: pytest.MonkeyPatch, *, polynomials: bool
) -> None:
    """But for the activations, whose error is less than that of a result in bfloat16."""
    if not polynomials:
        monkeypatch.setattr(openvino_rewrites, "activations_by_polynomials", lambda model: 0)
    exact, rewritten = unet(root), unet(root)
    before = kinds(exact)
    assert before["Sigmoid"] > 0 and before["Gelu"] > 0
    rewrite_for_fast_products(rewritten, spread=True)
    after = kinds(rewritten)
    assert after["GroupNormalization"] == 0
    assert after["Sigmoid"] + after["Gelu"] == (0 if polynomials else before["Sigmoid"] + before["Gelu"])
    assert after["MatMul"] == before["MatMul"] + before["Gelu"], "every GEGLU is two products"
    widths = {
        op.input_value(1).get_shape()[1] for op in rewritten.get_ops() if op.get_type_name() == "Convolution"
    }
    assert all(width % CHANNELS == 0 for width in widths)
    inputs = given(exact)
    np.testing.assert_allclose(run(rewritten, inputs), run(exact, inputs), rtol=0, atol=error)


@pytest.mark.skipif(best_dtype() != "bfloat16", reason="this CPU does not compute in bfloat16")
@pytest.mark.parametrize("spread", [False, True])
def test_in_bfloat16_a_rewritten_unet_errs_about_as_exported(root: Path, *, spread: bool) -> None:
    exact, plain, rewritten = unet(root), unet(root), unet(root)
    rewrite_for_fast_products(rewritten, spread=spread)
    inputs = given(exact)
    wanted = run(exact, inputs)
    errors = [
        float(np.sqrt(((run(model, inputs, precision="bf16") - wanted) ** 2).mean()))
        for model in (plain, rewritten)
    ]
    assert 0 < errors[1] <= 1.2 * errors[0], errors


@pytest.mark.parametrize(
    ("precision", "int8", "lanes", "spread"),
    [
        ("bf16", False, 1, [False]),
        ("bf16", False, 2, [True]),
        ("f32", False, 1, []),
        ("f32", False, 2, []),
        pytest.param("f32", True, 1, [True], marks=NEEDS_INT8),
    ],
)
def test_where_products_are_fast_alone_the_rest_is_rewritten(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: Literal["bf16", "f32"],
    lanes: int,
    spread: list[bool],
    *,
    int8: bool,
) -> None:
    seen: list[bool] = []
    monkeypatch.setattr(openvino_runtime, "rewrite_for_fast_products", lambda _, spread: seen.append(spread))
    runtime = OpenVINORuntime(OpenVINOSettings(precision=precision, int8=int8, threads=2, lanes=lanes))
    runtime.compile(exported(root), "unet", {port.any_name: tuple(port.shape) for port in unet(root).inputs})
    runtime.compile(exported(root), "text_kv", {"embedding": (1, 4, 32)})
    assert seen == spread, "the UNet, and nothing that stays in float32"
