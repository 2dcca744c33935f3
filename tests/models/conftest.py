"""One tiny model with every adapter, shared by the session."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tinymodels import ADAPTER_KINDS, TinySettings, build_tiny_model


@pytest.fixture(scope="session")
def every_adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model directory with one adapter of each kind."""
    return build_tiny_model(tmp_path_factory.mktemp("tiny"), TinySettings(adapters=ADAPTER_KINDS))
