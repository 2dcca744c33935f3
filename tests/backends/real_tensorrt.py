"""The real TensorRT-RTX bindings, where they can be had."""

from __future__ import annotations

import importlib
from typing import Any

from tests.needs import needing


def real_tensorrt() -> Any:
    """Import the bindings; without them a module's tests are skipped, or fail in CI, which skips none."""
    name = "tensorrt_rtx_bindings"
    with needing(ModuleNotFoundError):
        return importlib.import_module(name)
