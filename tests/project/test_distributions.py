"""What is installed under which name, and that nobody else's package is shadowed by ours."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DISTRIBUTIONS = {
    "limner": (ROOT, {"engine", "server"}),
    "limner-proto": (ROOT / "proto", {"limner"}),
    "limner-client": (ROOT / "clients/python", {"limner_client"}),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_top_level_modules_are_the_repositorys_own(name: str) -> None:
    folder, modules = DISTRIBUTIONS[name]
    owners = metadata.packages_distributions()
    for module in modules:
        assert set(owners[module]) == {name}
        spec = importlib.util.find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        assert Path(spec.origin).is_relative_to(folder)
    assert {
        module for module, names in owners.items() if name in names and not module.startswith("__")
    } == modules


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_no_distribution_can_be_uploaded_by_accident(name: str) -> None:
    folder, _ = DISTRIBUTIONS[name]
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert "Private :: Do Not Upload" in project["classifiers"]


def test_the_files_of_others_are_the_packages_own() -> None:
    folder = ROOT / "third_party/googleapis"
    copies = sorted(folder.rglob("*.proto"))
    files = {str(file): file for file in metadata.files("googleapis-common-protos") or ()}
    assert copies
    for path in copies:
        assert path.read_bytes() == files[path.relative_to(folder).as_posix()].read_binary()


def test_proto_is_no_python_package() -> None:
    assert not (ROOT / "proto/__init__.py").exists()


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("limner_client", {"torch", "numpy", "PIL", "server", "engine"}),
        ("server.__main__", {"torch", "diffusers", "transformers", "opentelemetry", "limner.kserve"}),
        ("engine.protocol.messages", {"torch", "grpc", "asyncio"}),
        ("engine.scheduling", {"torch", "numpy", "asyncio"}),
        ("engine.embedded", {"torch"}),
    ],
)
def test_what_an_import_brings_along(module: str, unwanted: set[str]) -> None:
    program = f"import sys, {module}; print(*sys.modules)"
    loaded = set(subprocess.check_output([sys.executable, "-c", program], text=True, cwd=ROOT).split())
    assert not loaded & unwanted
