"""What is written beside its place is there whole, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.files.replacement import leftovers, replacing


def test_a_file_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text("old")
    with replacing(path) as draft:
        draft.write_text("new")
        assert path.read_text() == "old" and leftovers(tmp_path) == leftovers(tmp_path, path.name) == [draft]
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_with_all_that_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with replacing(path) as draft:
        (draft / "within").mkdir(parents=True)
        (draft / "within" / "file").write_text("new")
        assert not path.exists()
    assert (path / "within" / "file").read_text() == "new" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(OSError, match="not empty"), replacing(path) as draft:
        draft.mkdir()
    assert (path / "within" / "file").exists() and list(tmp_path.iterdir()) == [path]


def half_a_file(draft: Path) -> None:
    draft.write_text("half")
    raise KeyboardInterrupt


def half_a_folder(draft: Path) -> None:
    (draft / "within").mkdir(parents=True)
    raise KeyboardInterrupt


def nothing(draft: Path) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("write", [half_a_file, half_a_folder, nothing])
def test_nothing_is_left_of_what_was_not_finished(tmp_path: Path, write: Callable[[Path], None]) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as draft:
        write(draft)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_draft_that_was_not_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "file"):
        pass
    assert not list(tmp_path.iterdir())
