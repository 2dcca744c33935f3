"""The real TensorRT-RTX bindings, where they can be had."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest


def real_tensorrt() -> Any:
    """Import the bindings; without them a module's tests are skipped, or fail in CI, which skips none."""
    name = "tensorrt_rtx_bindings"
    if os.environ.get("CI") == "true":
        return importlib.import_module(name)
    return pytest.importorskip(name)
