"""The files in deploy/ are true: they load, and their times fit together."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from server.config import load

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def test_the_configuration_loads_and_says_nothing_unknown() -> None:
    config = load(["--config", str(DEPLOY / "limner.toml")], {})
    assert config.listen.host == "0.0.0.0"


def test_the_unit_runs_a_command_that_exists_and_waits_for_the_drain() -> None:
    unit = configparser.ConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / "systemd/limner.service")
    service = unit["Service"]
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert Path(service["ExecStart"].split()[0]).name in scripts
    config = load(["--config", str(DEPLOY / "limner.toml")], {})
    drain = config.drain.notice_seconds + config.drain.grace_seconds + config.engine.stop_timeout_seconds
    assert float(service["TimeoutStopSec"]) > drain


def test_promtool_accepts_the_scrape_configuration() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        if os.environ.get("CI") == "true":
            pytest.fail("promtool is not installed; python -m tools.install says why")
        pytest.skip("promtool is not installed; python -m tools.install says why")
    done = subprocess.run(
        [promtool, "check", "config", str(DEPLOY / "prometheus/prometheus.yml")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
