"""Install what the tests need beside pip's packages, and say plainly what is left out.

Node packages go into the folders that lock them. Node.js and npm come from apt, where this runs as root. prometheus
and promtool are taken out of Debian's package `prometheus` into .cache/tools, where the Makefile finds them:
installing the package would start a monitoring daemon on this machine. redis-server is linked there, for the same
reason. What cannot be installed costs only the tests that need it: they say so and are skipped. Under CI=true
something left out is a failure.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tools import npm

UNPACKED = npm.ROOT / ".cache" / "tools"


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemTool:
    """A command that a Debian package brings; the package of one that is `unpacked` is not installed."""

    command: str
    package: str
    needed_by: str
    unpacked: bool = False
    is_really: str = ""
    """What the package calls it; the command becomes a link to that."""


SYSTEM_TOOLS = (
    SystemTool(
        command="promtool", package="prometheus", needed_by="the check of the metrics page", unpacked=True
    ),
    SystemTool(command="prometheus", package="prometheus", needed_by="the fleet test", unpacked=True),
    # The server is this very program under another name. Its own package would start a daemon.
    SystemTool(
        command="redis-server",
        package="redis-tools",
        needed_by="the shared reference cache",
        is_really="redis-check-rdb",
    ),
    # Debian 12's kubernetes-client is too old for components; this package is that of Kubernetes' own repository.
    SystemTool(command="kubectl", package="kubectl", needed_by="the build of deploy/kustomize"),
    SystemTool(command="node", package="nodejs", needed_by="buf, the client from another toolchain"),
    SystemTool(command="npm", package="npm", needed_by="buf, the client from another toolchain"),
)


def main() -> int:
    """Install everything that may be installed."""
    missing = [report(tool.command, tool.needed_by, install_system(tool)) for tool in SYSTEM_TOOLS]
    if shutil.which("node"):
        version = f"node {npm.NODE_MAJOR} or newer"
        missing.append(report(version, "the client from another toolchain", npm.node_fault()))
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


def install_system(tool: SystemTool, unpacked: Path = UNPACKED) -> str:
    """Bring a tool where that is allowed. Returns why not, or nothing."""
    if shutil.which(tool.command) or shutil.which(tool.command, path=unpacked) or link(tool, unpacked):
        return ""
    if shutil.which("apt-get") is None:
        return f"not installed, and there is no apt here; it is in Debian's package {tool.package}"
    if tool.unpacked:
        return unpack(tool, unpacked)
    if os.geteuid() != 0:
        return f"not installed; run: sudo apt-get install --no-install-recommends {tool.package}"
    print(f"installing {tool.package} with apt, for {tool.needed_by}")
    why_not = apt("update") or apt("install", "-y", "--no-install-recommends", tool.package)
    if why_not:
        return why_not
    if shutil.which(tool.command) or link(tool, unpacked):
        return ""
    return f"the package {tool.package} brought no {tool.command}"


def link(tool: SystemTool, folder: Path) -> bool:
    """Link a tool to the command that it really is. False when there is none."""
    found = shutil.which(tool.is_really) if tool.is_really else None
    if found is None:
        return False
    folder.mkdir(parents=True, exist_ok=True)
    (folder / tool.command).unlink(missing_ok=True)
    (folder / tool.command).symlink_to(found)
    return True


def unpack(tool: SystemTool, folder: Path) -> str:
    """Take a command, and what else is unpacked of its package, out of that without installing it.

    Returns why not, or nothing.
    """
    print(f"unpacking {tool.command} of the package {tool.package} into {folder}, for {tool.needed_by}")
    with tempfile.TemporaryDirectory() as scratch:
        why_not = apt("download", tool.package, cwd=scratch)
        if why_not and os.geteuid() != 0:
            return f"{why_not}; run: sudo apt-get update"
        if why_not:  # an image without package lists
            why_not = apt("update") or apt("download", tool.package, cwd=scratch)
        if why_not:
            return why_not
        (package,) = Path(scratch).glob("*.deb")
        done = subprocess.run(
            ["dpkg-deb", "-x", package, scratch], capture_output=True, text=True, check=False
        )
        commands = Path(scratch) / "usr" / "bin"
        if done.returncode or not (commands / tool.command).exists():
            return (
                f"the package {tool.package} brought no {tool.command} {done.stderr.strip()[-300:]}".strip()
            )
        folder.mkdir(parents=True, exist_ok=True)
        for other in SYSTEM_TOOLS:  # the package is large
            if other.unpacked and other.package == tool.package and (commands / other.command).exists():
                shutil.copy(commands / other.command, folder)
    return ""


def apt(*arguments: str, cwd: str | None = None) -> str:
    """Run apt-get. Returns why it failed, or nothing."""
    done = subprocess.run(
        ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        cwd=cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return f"apt-get {arguments[0]} failed: {done.stderr.strip()[-300:]}" if done.returncode else ""


if __name__ == "__main__":
    sys.exit(main())
