"""Where the files of deploy/ are, and how a tool is run over them."""

import shutil
import subprocess
from pathlib import Path

from tools import npm
from tools.install import UNPACKED

DEPLOY = npm.ROOT / "deploy"
KUSTOMIZE = DEPLOY / "kustomize"
RULES = DEPLOY / "prometheus" / "rules.yml"


class CheckError(Exception):
    """A tool, or a rule of ours, refuses a file; the text says which and why."""


class MissingError(Exception):
    """A tool is not on this machine."""


def command(name: str) -> str:
    """Find a command. Raises MissingError."""
    found = shutil.which(name) or shutil.which(name, path=UNPACKED)
    if found is None:
        raise MissingError(f"{name} is not installed; python -m tools.install says why")
    return found


def call(*arguments: str | Path, stdin: str | None = None) -> str:
    """Run a command and return its output. Raises CheckError with all it said when it fails."""
    done = subprocess.run(
        [str(argument) for argument in arguments], input=stdin, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CheckError(f"{Path(arguments[0]).name}: {(done.stdout + done.stderr).strip()}")
    return done.stdout
