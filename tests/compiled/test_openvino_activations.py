"""SiLU and GELU by polynomials are those of torch, to less of x than bfloat16 rounds it by."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import pytest
import torch
from openvino import opset13 as ops

from engine.backends.compiled.openvino_activations import NORMAL, SIGMOID, Rise, activations_by_polynomials
from tests.compiled.graphs import kinds, run

X = np.linspace(-100, 100, 40001, dtype=np.float32)[None]


def activated(kind: str) -> Any:
    x = ops.parameter(list(X.shape), openvino.Type.f32)
    x.output(0).set_names({"x"})
    sigmoid = ops.sigmoid(x)
    # Of an even number of values, which half is taken matters.
    halves = ops.split(ops.concat([x, x], 1), 1, 2)
    results = {
        "sigmoid first": lambda: [ops.multiply(sigmoid, x)],
        "x first": lambda: [ops.multiply(x, sigmoid)],
        "gate": lambda: [ops.multiply(sigmoid, ops.relu(x))],
        "read twice": lambda: [ops.multiply(x, sigmoid), ops.relu(sigmoid)],
        "sum": lambda: [ops.add(x, sigmoid)],
        "halves of one": lambda: [ops.multiply(ops.sigmoid(halves.output(0)), halves.output(1))],
        "gelu": lambda: [ops.gelu(x, "erf")],
        "gelu by tanh": lambda: [ops.gelu(x, "tanh")],
    }[kind]()
    return openvino.Model(results, [x], kind)


def found(kind: str) -> torch.Tensor:
    model = activated(kind)
    assert activations_by_polynomials(model) == 1
    assert kinds(model)["Sigmoid"] + kinds(model)["Gelu"] == 0
    return torch.from_numpy(run(model, {"x": X})).double()


def close(values: torch.Tensor, expected: torch.Tensor, rise: float) -> None:
    """Hold an activation to the error of its rise, and to half of what bfloat16 rounds large results by."""
    x = torch.from_numpy(X).double()
    error = (values - expected).abs()
    # It ends where the function is flat: nothing grows with x. float32's own rounding is what is left.
    assert float(error[x.abs() > 8].max()) <= 3e-3
    assert float(values[x < -50].abs().max()) <= 2e-5
    assert float((error / x.abs().clamp(min=1e-9))[x != 0].max()) <= rise
    large = expected.abs() >= 1
    assert float((error / expected.abs())[large].max()) <= 2**-9 / 2
    assert torch.equal(values[x == 0], expected[x == 0])


@pytest.mark.parametrize("kind", ["sigmoid first", "x first"])
def test_silu_is_that_of_torch(kind: str) -> None:
    close(found(kind), torch.nn.functional.silu(torch.from_numpy(X).double()), 4.8e-4)


def test_gelu_is_that_of_torch() -> None:
    close(found("gelu"), torch.nn.functional.gelu(torch.from_numpy(X).double()), 7.3e-5)


@pytest.mark.parametrize("rise", [SIGMOID, NORMAL], ids=["sigmoid", "normal"])
def test_a_rise_is_flat_beyond_its_limit_and_odd_about_a_half(rise: Rise) -> None:
    x = ops.parameter([1, 5], openvino.Type.f32)
    x.output(0).set_names({"x"})
    given = np.array([[rise.limit, 2 * rise.limit, 1e30, 1.0, -1.0]], np.float32)
    over_x = ops.divide(rise.times(x), x)
    limit, double, huge, one, minus_one = run(openvino.Model([over_x], [x], "rise"), {"x": given})[0]
    assert [limit, double, huge] == pytest.approx([1, 1, 1], abs=2e-7)
    assert one + minus_one == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("kind", ["gate", "read twice", "sum", "halves of one", "gelu by tanh"])
def test_others_are_left_alone(kind: str) -> None:
    assert activations_by_polynomials(activated(kind)) == 0
