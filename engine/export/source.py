"""Which files of a model directory its export is made from."""

from __future__ import annotations

from pathlib import Path

from engine.models.layout import ModelLayout

SUFFIXES = (".json", ".safetensors", ".txt", ".model")


def source_files(root: Path, adapter: str | None) -> list[Path]:
    """List the files of a model directory that its export depends on, in order.

    Those are all that loading may read, of the adapters only the one that is chosen. Raises the ``ModelError`` family.
    """
    chosen = ModelLayout.open(root).adapter(adapter)
    files = sorted(
        path
        for path in root.rglob("*")
        if path.suffix in SUFFIXES and path.is_file() and not _hidden(root, path)
    )
    return [path for path in files if path.parent != root / "ip_adapter" or path == chosen]


def _hidden(root: Path, path: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)
