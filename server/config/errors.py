"""What is wrong with a configuration."""

from __future__ import annotations

from collections.abc import Sequence


class ConfigError(Exception):
    """A configuration that cannot be used. ``problems`` names each key, where it came from and what is wrong."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)
