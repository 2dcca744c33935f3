"""Install what the tests need beside pip's packages, and say plainly what is left out.

Node packages go into the folders that lock them; system packages come from apt, where this runs as root. What
cannot be installed costs only the tests that need it: they say so and are skipped. Under CI=true something left
out is a failure.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass

from tools import npm


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemTool:
    """A command that a Debian package brings."""

    command: str
    package: str
    needed_by: str


SYSTEM_TOOLS = (
    SystemTool(command="promtool", package="prometheus", needed_by="the check of the metrics page"),
    SystemTool(command="node", package="nodejs", needed_by="the client from another toolchain"),
)


def main() -> int:
    """Install everything that may be installed."""
    missing = [report(tool.command, tool.needed_by, install_system(tool)) for tool in SYSTEM_TOOLS]
    for folder, needed_by in (
        (npm.TOOLS, "buf: lint and breaking changes of the API, calls by reflection"),
        (npm.INTEROP, "the client from another toolchain"),
    ):
        name = f"npm packages of {folder.relative_to(npm.ROOT)}"
        missing.append(report(name, needed_by, npm.install(folder)))
    return 1 if any(missing) and os.environ.get("CI") == "true" else 0


def report(name: str, needed_by: str, why_not: str) -> bool:
    """Print one line about a tool and tell whether it is missing."""
    print(f"left out: {name} ({needed_by}): {why_not}" if why_not else f"ready: {name}")
    return bool(why_not)


def install_system(tool: SystemTool) -> str:
    """Install a tool's package where that is allowed. Returns why not, or nothing."""
    if shutil.which(tool.command):
        return ""
    apt = shutil.which("apt-get")
    if apt is None:
        return f"not installed, and there is no apt here; it is in Debian's package {tool.package}"
    if os.geteuid() != 0:
        return f"not installed; run: sudo apt-get install --no-install-recommends {tool.package}"
    print(f"installing {tool.package} with apt, for {tool.needed_by}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    wait = ("-q", "-o", "DPkg::Lock::Timeout=300")
    for command in (("update",), ("install", "-y", "--no-install-recommends", tool.package)):
        done = subprocess.run(
            [apt, *wait, *command], env=environment, capture_output=True, text=True, check=False
        )
    if done.returncode:
        return f"apt-get failed: {done.stderr.strip()[-300:]}"
    return "" if shutil.which(tool.command) else f"the package {tool.package} brought no {tool.command}"


if __name__ == "__main__":
    sys.exit(main())
