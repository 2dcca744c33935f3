"""What the fleet's Prometheus is told differs from what is shipped in what it says, and in nothing else."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.fleet.monitoring import HASTENED, SCRAPES, hastened_files
from tools.deploy.paths import RULES


def leaves(value: object, path: str = "") -> dict[str, object]:
    """Flatten a document to its values by their paths; rules are told by their names."""
    if isinstance(value, dict):
        return {k: v for key, one in value.items() for k, v in leaves(one, f"{path}.{key}").items()}
    if isinstance(value, list):
        names = [one.get("alert", str(n)) if isinstance(one, dict) else str(n) for n, one in enumerate(value)]
        return {
            k: v
            for name, one in zip(names, value, strict=True)
            for k, v in leaves(one, f"{path}.{name}").items()
        }
    return {path: value}


def changes(shipped: Path, made: Path) -> dict[str, tuple[object, object]]:
    before, after = (leaves(yaml.safe_load(file.read_text())) for file in (shipped, made))
    assert before.keys() <= after.keys()
    return {path: (before.get(path), after[path]) for path in after if before.get(path) != after[path]}


def test_only_targets_and_times_are_other_than_shipped(tmp_path: Path) -> None:
    config = hastened_files(tmp_path, ["127.0.0.1:1", "127.0.0.1:2"])
    targets = ".scrape_configs.0.static_configs.0.targets"
    assert changes(SCRAPES, config) == {
        ".global.scrape_interval": ("15s", "1s"),
        ".global.evaluation_interval": ("15s", "1s"),
        f"{targets}.0": ("localhost:9464", "127.0.0.1:1"),
        f"{targets}.1": (None, "127.0.0.1:2"),
    }
    assert changes(RULES, tmp_path / RULES.name) == {f".groups.1.rules.{HASTENED}.for": ("1m", "4s")}
