"""The wheel brings the model in the box, and nothing that happens to lie beside it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIST = """
import setuptools
build = setuptools.setup().get_command_obj("build_py")
build.ensure_finalized()
for package, _, _, names in build.data_files:
    for name in names:
        print(f"DATA:{package}:{name}")
"""


def test_only_the_model_its_references_and_its_readme_are_shipped(tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copy(ROOT / "README.md", tmp_path)
    shipped = (
        "embedded/weights/model_index.json",
        "embedded/weights/unet/config.json",
        "embedded/references/ada.png",
        "embedded/README.md",
    )
    beside = ("embedded/NOTE.txt", "embedded/sheets/one.png", "embedded/.cache/train.log", "notes.md")
    for name in ("__init__.py", "embedded/__init__.py", *shipped, *beside):
        path = tmp_path / "engine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    done = subprocess.run(
        [sys.executable, "-c", LIST, "--quiet", "--name"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split(":") for line in done.stdout.splitlines() if line.startswith("DATA:")]
    assert {name.removeprefix("engine/") for _, package, name in lines if package == "engine"} == set(shipped)
