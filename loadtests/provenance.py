"""Where figures come from: when, on which CPU, and with which code."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "openvino", "diffusers", "grpcio")
_ROOT = Path(__file__).parents[1]
_CPUINFO = Path("/proc/cpuinfo")


def provenance() -> dict[str, str | int]:
    """Return the moment in UTC, CPU, cores, commit and versions; what this machine cannot tell is left out."""
    known: dict[str, str | int] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu(),
        "cores": os.cpu_count() or 1,
    }
    commit = _commit()
    if commit:
        known["commit"] = commit
    for package in PACKAGES:
        try:
            known[package] = version(package)
        except PackageNotFoundError:
            continue
    return known


def _cpu() -> str:
    if _CPUINFO.exists():
        for line in _CPUINFO.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    """Return the commit of this checkout, with ``-dirty`` where files differ from it; empty where there is none."""
    command = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
