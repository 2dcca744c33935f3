"""Tiny models that the session shares, and copies of them to spoil."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tinymodels import ADAPTER_KINDS, TinySettings, build_tiny_model, build_tiny_xl


@pytest.fixture(scope="session")
def every_adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model directory with one adapter of each kind."""
    return build_tiny_model(tmp_path_factory.mktemp("tiny"), TinySettings(adapters=ADAPTER_KINDS))


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("sound") / "model")


@pytest.fixture(scope="session")
def sound_xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_xl(tmp_path_factory.mktemp("sound") / "xl")


@pytest.fixture
def root(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "model"))


@pytest.fixture
def root_of(sound: Path, sound_xl: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Return the function that copies a family's model."""
    return lambda family: Path(shutil.copytree({"sd1": sound, "sdxl": sound_xl}[family], tmp_path / "model"))
