"""How tests write a configuration and hear what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.config import ConfigError, load


def write(path: Path, text: str) -> str:
    file = path / "limner.toml"
    file.write_text(text)
    return str(file)


def problems(arguments: list[str], environment: dict[str, str]) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(arguments, environment)
    return caught.value.problems
