"""A tiny model, and the torch backend on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.backends.torch_backend import TorchBackend
from engine.models.model import Model, load_model
from tests.backends.rows import TORCH_SETTINGS
from tests.tinymodels import build_tiny_model


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def model(root: Path) -> Model:
    return load_model(root)


@pytest.fixture
def backend(model: Model) -> TorchBackend:
    return TorchBackend(model, TORCH_SETTINGS)
