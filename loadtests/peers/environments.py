"""A virtual environment a peer, made from its pinned requirements when they are new or have changed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from loadtests.peers.errors import PeerNotInstalledError, tail

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements"


def requirements_digest(name: str) -> str:
    """Return what changes when a peer's requirements, or those that all torch peers share, change."""
    texts = [(REQUIREMENTS / f"{each}.txt").read_bytes() for each in (name, "torch")]
    return hashlib.sha256(b"\0".join([*texts, sys.version.encode()])).hexdigest()


def environment(name: str, root: Path, pip_arguments: Sequence[str] = ()) -> Path:
    """Return the Python of a peer's environment below `root`, installing it first where need be.

    Raises ``PeerNotInstalledError`` with the end of what pip said.
    """
    folder = root / name
    python = folder / "bin" / "python"
    stamp = folder / ".installed"
    digest = requirements_digest(name)
    if stamp.is_file() and stamp.read_text() == digest:
        return python
    stamp.unlink(missing_ok=True)
    log = root / f"{name}.install.log"
    root.mkdir(parents=True, exist_ok=True)
    commands = [
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--disable-pip-version-check", *pip_arguments,
         "-r", str(REQUIREMENTS / f"{name}.txt")],
    ]  # fmt: skip
    with log.open("wb") as sink:
        for command in commands:
            status = subprocess.run(command, stdout=sink, stderr=subprocess.STDOUT, check=False).returncode
            if status:
                raise PeerNotInstalledError(name, status, tail(log))
    stamp.write_text(digest)
    return python
