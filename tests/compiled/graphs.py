"""OpenVINO graphs to rewrite, and to run before and after."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from engine.backends.compiled.openvino_core import shared_core
from engine.backends.compiled.openvino_surgery import static
from tests.compiled import exported

ROWS = 3
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}


def unet(root: Path, rows: int = ROWS) -> Any:
    """Read the tiny UNet for so many rows."""
    path, entry = exported(root).graph("unet")
    model = shared_core().read_model(path)
    named = {"rows": rows, "height": 8, "width": 8}
    free = iter((8, 8))
    shapes: dict[str, list[int]] = {}
    for spec in entry.inputs:
        sizes = [size if isinstance(size, int) else named.get(size) for size in spec.shape]
        shapes[spec.name] = [
            rows if place == 0 else size or (next(free, 4) if spec.name == "sample" else 4)
            for place, size in enumerate(sizes)
        ]
    model.reshape(shapes)
    assert static(model)
    return model


def run(model: Any, inputs: dict[str, np.ndarray[Any, Any]], precision: str = "f32") -> np.ndarray[Any, Any]:
    compiled = shared_core().compile_model(model, "CPU", EXACT | {"INFERENCE_PRECISION_HINT": precision})
    found: np.ndarray[Any, Any] = compiled(inputs)[0]
    return found


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
