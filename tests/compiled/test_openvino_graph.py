"""What a compiled OpenVINO graph takes and gives: whatever types and names its ports have, and in any mode of torch."""

from __future__ import annotations

from typing import Any

import openvino
import pytest
import torch
from openvino import opset13 as ops

from engine.backends.compiled.openvino_core import shared_core
from engine.backends.compiled.openvino_graph import OpenVINOGraph


def graph(*, kind: str = "f32", rows: int = 2) -> OpenVINOGraph:
    """Return ``x`` plus one as floats, under two names."""
    x = ops.parameter([rows, 3], getattr(openvino.Type, kind))
    x.output(0).set_names({"x", "also x"})
    more: Any = ops.add(ops.convert(x, "f32"), ops.constant([1.0], openvino.Type.f32))
    more.output(0).set_names({"y", "also y"})
    model = openvino.Model([more], [x], "more")
    return OpenVINOGraph(shared_core().compile_model(model, "CPU"), ["y", "also y"])


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("f32", torch.float32),
        ("f16", torch.float16),
        ("i64", torch.int64),
        ("i32", torch.int32),
        ("u8", torch.uint8),
        ("f64", torch.float64),
    ],
)
@pytest.mark.parametrize("name", ["x", "also x"])
def test_every_type_and_every_name(kind: str, dtype: torch.dtype, name: str) -> None:
    x = torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=dtype)
    found = graph(kind=kind)({name: x})
    for output in ("y", "also y"):
        assert torch.equal(found[output], x.float() + 1)


def test_outputs_belong_to_the_caller() -> None:
    call, x = graph(), torch.ones(2, 3)
    first = call({"x": x})["y"]
    call({"x": 5 * x})
    assert torch.equal(first, x + 1)


def test_a_graph_made_in_inference_mode_runs_outside_of_it() -> None:
    with torch.inference_mode():
        call = graph()
    assert torch.equal(call({"x": torch.ones(2, 3)})["y"], torch.full((2, 3), 2.0))


def test_an_input_of_another_shape_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="x is"):
        graph()({"x": torch.ones(1, 3)})
