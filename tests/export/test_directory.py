"""Exports that were damaged end in typed errors that name the file, expected and found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.backends.compiled.backend import CompiledBackend, CompiledSettings
from engine.backends.compiled.create import open_export
from engine.backends.options import BackendOptions
from engine.export import errors
from engine.export.digest import digest_file
from engine.export.directory import ExportDirectory
from tests.compiled import RUNTIMES, exported, make_runtime
from tests.tinymodels import build_tiny_model

Document = dict[str, Any]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(build_tiny_model(tmp_path_factory.mktemp("tiny") / "model")).root


@pytest.fixture
def root(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "export"))


def edit(root: Path, change: Callable[[Document], object]) -> None:
    path = root / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def truncate(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("file", ["unet.onnx", "unet.onnx.data", "tokenizer.json", "adapters/base_kv.onnx"])
@pytest.mark.parametrize(
    ("damage", "found"), [(Path.unlink, "missing"), (truncate, "bytes; found"), (flip, "SHA-256")]
)
def test_a_damaged_file_is_named(root: Path, file: str, damage: Callable[[Path], object], found: str) -> None:
    damage(root / file)
    with pytest.raises(errors.DamagedExportError, match=found) as caught:
        ExportDirectory.open(root)
    assert caught.value.path == root / file
    assert caught.value.expected


def test_no_export(tmp_path: Path) -> None:
    with pytest.raises(errors.NotAnExportError):
        ExportDirectory.open(tmp_path)


def test_a_manifest_that_is_none(root: Path) -> None:
    (root / "manifest.json").write_text("{")
    with pytest.raises(errors.CorruptManifestError):
        ExportDirectory.open(root)
    (root / "manifest.json").write_text("[]")
    with pytest.raises(errors.ExportVersionError):
        ExportDirectory.open(root)


def test_another_format(root: Path) -> None:
    edit(root, lambda document: document.update(format=99))
    with pytest.raises(errors.ExportVersionError, match="expected 3; found 99"):
        ExportDirectory.open(root)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda document: document.pop("facts"), "facts"),
        (lambda document: document.update(opset="21"), "opset"),
        (lambda document: document["graphs"].pop("text_kv"), "text_kv"),
        (lambda document: document["graphs"].pop("adapters/base"), "adapters/base"),
        (lambda document: document["files"][0].update(file="../tokenizer.json"), "outside"),
    ],
)
def test_a_manifest_that_lacks_something(root: Path, change: Callable[[Document], object], what: str) -> None:
    edit(root, change)
    with pytest.raises(errors.CorruptManifestError, match=what) as caught:
        ExportDirectory.open(root)
    assert caught.value.path == root / "manifest.json"


def test_columns_of_another_model(root: Path) -> None:
    edit(root, lambda document: document["columns"].pop())
    with pytest.raises(errors.GraphMismatchError, match="columns"):
        ExportDirectory.open(root)


def replace(root: Path, graph: str, file: str, content: bytes) -> None:
    """Put another file in a graph's place and let the manifest vouch for it."""
    (root / file).write_bytes(content)
    digest = digest_file(root, root / file)
    edit(
        root,
        lambda document: document["graphs"][graph]["onnx"].update(bytes=digest.bytes, sha256=digest.sha256),
    )


def start(root: Path, runtime: str) -> CompiledBackend:
    return CompiledBackend(ExportDirectory.open(root), make_runtime(runtime), CompiledSettings(buckets=(2,)))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_graph_that_is_none(root: Path, runtime: str) -> None:
    replace(root, "text_kv", "text_kv.onnx", b"not a graph")
    with pytest.raises(errors.GraphCompileError) as caught:
        start(root, runtime)
    assert caught.value.path == root / "text_kv.onnx"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_another_graph_in_its_place(root: Path, runtime: str) -> None:
    other = (root / "text_encoder.onnx").read_bytes()
    replace(root, "text_kv", "text_kv.onnx", other)
    with pytest.raises(errors.GraphMismatchError, match="expected embedding; found input_ids"):
        start(root, runtime)


def test_a_tokenizer_that_is_none(root: Path) -> None:
    (root / "tokenizer.json").write_text("{}")
    digest = digest_file(root, root / "tokenizer.json")
    edit(root, lambda document: document["files"][0].update(bytes=digest.bytes, sha256=digest.sha256))
    with pytest.raises(errors.DamagedExportError, match="tokenizer"):
        start(root, "onnxruntime")


def test_what_was_not_asked_for(root: Path, tmp_path: Path) -> None:
    assert open_export(root, BackendOptions(adapter="base")).root == root
    with pytest.raises(errors.ExportMismatchError, match="expected plus; found base"):
        open_export(root, BackendOptions(adapter="plus"))
    edit(root, lambda document: document.update(dtype="float16"))
    with pytest.raises(errors.ExportMismatchError, match="expected float32; found float16"):
        open_export(root, BackendOptions())
    with pytest.raises(errors.ExportError, match="cache"):
        open_export(tmp_path, BackendOptions())
