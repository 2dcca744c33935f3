"""A model is exported once, whoever asks, and again only when something that counts has changed."""

from __future__ import annotations

import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from engine.export import cache as cache_module
from engine.export.cache import cached_export, export_key
from engine.export.errors import ExportFailedError, ExportLockError, ExportWriteError
from engine.export.settings import ExportSettings
from engine.export.spawn import export_in_child
from engine.files.lock import file_lock
from engine.models.errors import NotAModelError
from engine.models.lora_choice import LoraChoice
from tests.compiled import exported
from tests.tinymodels import TinySettings, build_tiny_model

SETTINGS = ExportSettings()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(
        tmp_path_factory.mktemp("tiny") / "model", TinySettings(adapters=("base", "plus"))
    )


class Copier:
    """Stands for the export: copies one that was made before, and counts."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.made = 0
        self.began = threading.Event()
        self.may_end = threading.Event()
        self.may_end.set()

    def __call__(self, root: Path, output: Path, settings: ExportSettings) -> None:
        self.made += 1
        self.began.set()
        assert self.may_end.wait(30)
        shutil.copytree(self.source, output)


@pytest.fixture
def make(root: Path) -> Copier:
    return Copier(exported(root, "base").root)


CHOSEN = replace(SETTINGS, adapter="base")


def test_the_second_start_finds_what_the_first_made(root: Path, tmp_path: Path, make: Copier) -> None:
    first = cached_export(root, tmp_path, CHOSEN, make=make)
    assert cached_export(root, tmp_path, CHOSEN, make=make) == first
    assert make.made == 1


def test_a_cache_that_can_only_be_read_serves(root: Path, tmp_path: Path, make: Copier) -> None:
    cached_export(root, tmp_path, CHOSEN, make=make)
    for lock in (tmp_path / "exports").glob("*.lock"):
        lock.unlink()
        lock.mkdir()  # so that no lock can be had
    cached_export(root, tmp_path, CHOSEN, make=make)


def test_the_key_has_all_that_counts(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = export_key(root, CHOSEN)
    assert key == export_key(root, CHOSEN)
    copied = shutil.copytree(root, tmp_path / "model")
    assert export_key(copied, CHOSEN) == key
    lora = copied / "unet" / "diffusion_pytorch_model.safetensors"  # any file: only its digest counts here
    keys = {
        key,
        export_key(root, replace(CHOSEN, adapter="plus")),
        export_key(root, replace(CHOSEN, dtype="float16")),
        export_key(root, replace(CHOSEN, opset=20)),
        export_key(root, replace(CHOSEN, size=(64, 64))),
    }
    keys.add(export_key(root, replace(CHOSEN, loras=(LoraChoice(path=lora),))))
    keys.add(export_key(root, replace(CHOSEN, loras=(LoraChoice(path=lora, scale=0.5),))))
    (copied / "ip_adapter" / "plus.safetensors").unlink()
    keys.add(export_key(copied, CHOSEN))
    config = copied / "vae" / "config.json"
    config.write_text(config.read_text() + " ")
    keys.add(export_key(copied, CHOSEN))
    monkeypatch.setattr(cache_module, "REVISION", cache_module.REVISION + 1)
    keys.add(export_key(root, CHOSEN))
    monkeypatch.setattr(cache_module.importlib.metadata, "version", lambda package: "0")
    keys.add(export_key(root, CHOSEN))
    assert len(keys) == 11


def test_a_damaged_export_is_made_again(root: Path, tmp_path: Path, make: Copier) -> None:
    export = cached_export(root, tmp_path, CHOSEN, make=make)
    (export.root / "unet.onnx.data").write_bytes(b"")
    half = export.root.with_name(f".{export.root.name}.killed.part")
    half.mkdir()
    again = cached_export(root, tmp_path, CHOSEN, make=make)
    assert make.made == 2 and again == export
    assert not half.exists()


def test_concurrent_starts_export_once(root: Path, tmp_path: Path, make: Copier) -> None:
    make.may_end.clear()
    found = []
    starts = [
        threading.Thread(target=lambda: found.append(cached_export(root, tmp_path, CHOSEN, make=make)))
        for _ in range(3)
    ]
    for start in starts:
        start.start()
    assert make.began.wait(30)
    make.may_end.set()
    for start in starts:
        start.join(30)
    assert make.made == 1 and len(found) == 3 and found[0] == found[1] == found[2]


def test_who_holds_the_lock_for_too_long_is_named(
    root: Path, tmp_path: Path, make: Copier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "PATIENCE_SECONDS", 0.0)
    lock = tmp_path / "exports" / f"{export_key(root, CHOSEN)}.lock"
    lock.parent.mkdir()
    words = rf"{lock}: another process holds the lock; expected its end within 0 s; found process {os.getpid()} on"
    with file_lock(lock), pytest.raises(ExportLockError, match=words):
        cached_export(root, tmp_path, CHOSEN, make=make)
    assert make.made == 0


def test_a_folder_that_cannot_be_written_says_what_to_set(root: Path, tmp_path: Path, make: Copier) -> None:
    (tmp_path / "file").write_text("")
    for cache in (tmp_path / "file", tmp_path / "file" / "under"):
        with pytest.raises(ExportWriteError, match=r"cache_dir.*LIMNER_ENGINE_CACHE_DIR.*XDG_CACHE_HOME"):
            cached_export(root, cache, CHOSEN, make=make)
    assert make.made == 0


def test_no_model(tmp_path: Path, make: Copier) -> None:
    with pytest.raises(NotAModelError):
        cached_export(tmp_path, tmp_path / "cache", SETTINGS, make=make)


def test_an_export_in_a_process_of_its_own_tells_why_it_failed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    with pytest.raises(ExportFailedError, match=r"ExportWriteError.*exists already"):
        export_in_child(root, tmp_path / "export", CHOSEN)
