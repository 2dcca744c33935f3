"""One process holds a lock; the others hear by whom, and get it when that process ends, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.files.lock import LockFileError, LockHeldError, file_lock

HOLD = """
import pathlib, sys, time
from engine.files.lock import file_lock
with file_lock(pathlib.Path(sys.argv[1]), patience=5):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


@pytest.fixture
def holder(path: Path) -> Iterator[int]:
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process.pid
        process.kill()


def test_a_held_lock_is_waited_for_and_its_holder_named(path: Path, holder: int) -> None:
    told: list[str] = []
    with (
        pytest.raises(LockHeldError, match=f"{path} is held by process {holder} on") as caught,
        file_lock(path, patience=0.3, waiting=told.append),
    ):
        raise AssertionError("the lock is held by another")
    assert told == [caught.value.holder], "told once, however long it takes"


def test_the_lock_of_a_killed_holder_is_free(path: Path, holder: int) -> None:
    with file_lock(path, waiting=lambda who: os.kill(holder, signal.SIGKILL)):
        assert path.read_text().startswith(f"process {os.getpid()} on ")


def test_a_file_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(LockFileError, match=str(tmp_path / "no folder")),
        file_lock(tmp_path / "no folder" / "lock"),
    ):
        pass


def test_a_lock_is_free_again_after_an_error_within(path: Path) -> None:
    with pytest.raises(KeyError), file_lock(path):
        raise KeyError
    with file_lock(path, patience=0):
        pass
