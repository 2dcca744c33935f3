"""A file in memory outlives its name."""

from __future__ import annotations

from pathlib import Path

from engine.backends.compiled.mapped import Mapped


def test_a_file_whose_cache_was_removed_is_still_read(tmp_path: Path) -> None:
    """Graphs of adapters run first when the first reference comes; docs/backends.md lets people remove the cache."""
    path = tmp_path / "graph.blob"
    path.write_bytes(b"weights" * 4096)
    mapped = Mapped(path)
    path.unlink()
    for _ in range(2):
        mapped.release()
        assert mapped.memory[:7] == b"weights"
