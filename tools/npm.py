"""Node packages of this project: two folders, each with a lock file that names no registry."""

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / "tools"
INTEROP = ROOT / "tests" / "interop" / "js"
FOLDERS = (TOOLS, INTEROP)
NODE_MAJOR = 20
"""The oldest Node.js that the packages of `INTEROP` run on, as its lock file says; buf is content with 12."""
_STAMP = ".limner-lock"


def install(folder: Path) -> str:
    """Install exactly what the folder's lock file says, without install scripts. Returns why not, or nothing."""
    lock = (folder / "package-lock.json").read_bytes()
    if named := re.search(rb'"resolved"|https?://[^"]*registry', lock):
        return f"its package-lock.json names a registry ({named[0].decode()}); npm would go there"
    modules = folder / "node_modules"
    stamp = hashlib.sha256(lock).hexdigest()
    if (modules / _STAMP).exists() and (modules / _STAMP).read_text() == stamp:
        return ""
    npm = shutil.which("npm")
    if npm is None:
        return "npm is not installed"
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"npm ci failed: {done.stderr.strip()[-300:]}"
    (modules / _STAMP).write_text(stamp)
    return ""


def node_fault() -> str:
    """Say why the client of `INTEROP` cannot run on the Node.js that is here; nothing when it can."""
    node = shutil.which("node")
    if node is None:
        return "node is not installed"
    told = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    major = re.match(r"v(\d+)\.", told)
    if major is None:
        return f"node does not tell its version, but {told!r}"
    return "" if int(major[1]) >= NODE_MAJOR else f"node {major[1]}, needs {NODE_MAJOR}"


def binary(folder: Path, name: str) -> Path | None:
    """Find a command that a folder's packages brought."""
    path = folder / "node_modules" / ".bin" / name
    return path if path.exists() else None
