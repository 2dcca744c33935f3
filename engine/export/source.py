"""Which files of a model directory its export is made from."""

from __future__ import annotations

from pathlib import Path

from engine.models.layout import ModelLayout

SUFFIXES = (".json", ".safetensors", ".txt", ".model")


def source_files(root: Path) -> list[Path]:
    """List the files of a model directory that its export depends on, in order: all that loading may read.

    Raises the ``ModelError`` family for a directory that is no model.
    """
    ModelLayout.open(root)
    return sorted(
        path
        for path in root.rglob("*")
        if path.suffix in SUFFIXES and path.is_file() and not _hidden(root, path)
    )


def _hidden(root: Path, path: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)
