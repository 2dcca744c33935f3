"""What is installed for the tests, and what is said of what is not."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.needs import need
from tools import install, npm

PROMETHEUS = next(tool for tool in install.SYSTEM_TOOLS if tool.command == "prometheus")
PROMTOOL = next(tool for tool in install.SYSTEM_TOOLS if tool.command == "promtool")
REDIS = next(tool for tool in install.SYSTEM_TOOLS if tool.command == "redis-server")
NPM = next(tool for tool in install.SYSTEM_TOOLS if tool.command == "npm")


class Machine:
    """A folder of commands that is all of PATH; apt-get remembers what it was asked, and obeys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.unpacked = folder / "unpacked"

    def command(self, name: str, script: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def apt(self, script: str = "") -> None:
        self.command("apt-get", f'echo "$@" >> {self.log}\n{script}')

    def asked(self) -> list[str]:
        words = [line.split() for line in self.log.read_text().splitlines()]
        return [" ".join(line[3:]) for line in words]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return Machine(tmp_path)


def test_promtool_is_unpacked_and_its_package_not_installed(machine: Machine) -> None:
    machine.apt(": > prometheus_1.deb")
    machine.command("dpkg-deb", '/bin/mkdir -p "$3/usr/bin" && /bin/cp "$0" "$3/usr/bin/promtool"')
    assert install.install_system(PROMTOOL, machine.unpacked) == ""
    assert os.access(machine.unpacked / "promtool", os.X_OK)
    assert machine.asked() == ["download prometheus"]
    assert install.install_system(PROMTOOL, machine.unpacked) == ""
    assert machine.asked() == ["download prometheus"]


def test_prometheus_comes_out_of_the_same_download(machine: Machine) -> None:
    machine.apt(": > prometheus_1.deb")
    machine.command(
        "dpkg-deb",
        '/bin/mkdir -p "$3/usr/bin" && for name in promtool prometheus; do /bin/cp "$0" "$3/usr/bin/$name"; done',
    )
    for tool in (PROMTOOL, PROMETHEUS):
        assert install.install_system(tool, machine.unpacked) == ""
        assert os.access(machine.unpacked / tool.command, os.X_OK)
    assert machine.asked() == ["download prometheus"]


def test_without_package_lists_root_fetches_them_and_others_are_told(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.apt('echo "Unable to locate package" >&2; exit 100')
    assert "update failed: Unable to locate" in install.install_system(PROMTOOL, machine.unpacked)
    assert machine.asked() == ["download prometheus", "update"]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert install.install_system(PROMTOOL, machine.unpacked).endswith("run: sudo apt-get update")


def test_npm_is_a_tool_of_its_own_as_debians_node_brings_none(machine: Machine) -> None:
    machine.apt()
    machine.command("node", "echo v20.1.0")
    assert "brought no npm" in install.install_system(NPM)
    assert machine.asked() == ["update", "install -y --no-install-recommends npm"]


def test_redis_comes_without_its_daemon(machine: Machine) -> None:
    machine.apt()
    assert "redis-tools brought no redis-server" in install.install_system(REDIS, machine.unpacked)
    machine.command("redis-check-rdb", "")
    assert install.install_system(REDIS, machine.unpacked) == ""
    assert (machine.unpacked / "redis-server").resolve() == machine.folder / "redis-check-rdb"
    assert machine.asked() == ["update", "install -y --no-install-recommends redis-tools"]


@pytest.mark.parametrize(
    ("told", "fault"),
    [
        ("v18.19.0", "node 18, needs 20"),
        ("v20.0.0", ""),
        ("v22.11.0", ""),
        ("what?", "node does not tell its version, but 'what?'"),
        (None, "node is not installed"),
    ],
)
def test_an_old_node_is_named(machine: Machine, told: str | None, fault: str) -> None:
    if told is not None:
        machine.command("node", f"echo '{told}'")
    assert npm.node_fault() == fault


def test_the_least_node_is_what_the_lock_asks_for() -> None:
    lock = json.loads((npm.INTEROP / "package-lock.json").read_text())
    asked = [package["engines"]["node"] for package in lock["packages"].values() if "engines" in package]
    majors = [re.fullmatch(r">=(\d+)[\d.]*", least) for least in asked]
    assert all(majors), asked
    assert max(int(major[1]) for major in majors if major) == npm.NODE_MAJOR


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_a_fault_skips_a_test_and_fails_it_in_ci(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="left out: node 18, needs 20"):
        need("/usr/bin/node", "node", "node 18, needs 20")
    assert need("/usr/bin/node", "node") == "/usr/bin/node"


def test_the_makefile_finds_what_was_unpacked() -> None:
    program = "print-path: ; @echo $$PATH"
    done = subprocess.run(
        ["make", "-s", "--no-print-directory", "-f", "Makefile", "-f", "-", "print-path"],
        cwd=npm.ROOT, input=program, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split(":")[0] == str(install.UNPACKED)
