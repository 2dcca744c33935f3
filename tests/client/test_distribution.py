"""The client stands alone: light to import, and a wheel with its own module only."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CLIENT = Path(__file__).parents[2] / "clients" / "python"


def test_importing_it_loads_nothing_heavy():
    script = (
        "import sys, limner_client, limner_client.cli; "
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "limner_client" in loaded
    assert not loaded & {
        "torch",
        "numpy",
        "PIL",
        "server",
        "engine",
        "diffusers",
        "transformers",
        "structlog",
    }


@pytest.mark.timeout(120)
def test_the_wheel_holds_only_its_own_module(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for path in (CLIENT / "pyproject.toml", CLIENT / "README.md", *(CLIENT / "limner_client").rglob("*.py*")):
        if path.suffix == ".pyc":
            continue
        copy = source / path.relative_to(CLIENT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (source / "limner_client" / "py.typed").touch()
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--no-deps",
            "--no-build-isolation",
            "-q",
            "-w",
            tmp_path,
            source,
        ],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("limner_client-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"limner_client"}
    assert "limner_client/py.typed" in names
    assert "limner_client/wire/specs.py" in names
