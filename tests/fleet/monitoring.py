"""A real Prometheus with the shipped scrape configuration and the shipped rules."""

from __future__ import annotations

import contextlib
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.fleet.replica import lasting_port
from tests.waiting import until
from tools.deploy.paths import DEPLOY, RULES, command

SCRAPES = DEPLOY / "prometheus" / "prometheus.yml"
HASTE = 15
"""One second stands for fifteen, so that what is counted in scrapes stays the same number of them."""
HASTENED = "LimnerReplicaDown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One alert that Prometheus holds; ``state`` is pending or firing."""

    name: str
    state: str
    instance: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prometheus:
    """A running Prometheus."""

    url: str
    log: Path

    def alerts(self, name: str) -> set[Alert]:
        """Read the alerts of one name."""
        return {
            Alert(
                name=alert["labels"]["alertname"],
                state=alert["state"],
                instance=alert["labels"].get("instance", ""),
            )
            for alert in self._ask("/api/v1/alerts")["alerts"]
            if alert["labels"]["alertname"] == name
        }

    def rules(self) -> dict[str, dict[str, Any]]:
        """Read the rules that it evaluates, by name, with their health."""
        return {
            rule["name"]: rule for group in self._ask("/api/v1/rules")["groups"] for rule in group["rules"]
        }

    def up(self) -> set[str]:
        """List the instances whose last scrape was answered."""
        targets = self._ask("/api/v1/targets")["activeTargets"]
        return {target["labels"]["instance"] for target in targets if target["health"] == "up"}

    def _ask(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=10) as answer:
            return json.load(answer)["data"]


def hastened_files(folder: Path, targets: Sequence[str]) -> Path:
    """Write the shipped files with other targets and with time made shorter, and nothing else changed."""
    config = yaml.safe_load(SCRAPES.read_text())
    for interval in ("scrape_interval", "evaluation_interval"):
        config["global"][interval] = hastened(config["global"][interval])
    (job,) = config["scrape_configs"]
    job["static_configs"] = [{"targets": list(targets)}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    rules = yaml.safe_load(RULES.read_text())
    (alert,) = (rule for group in rules["groups"] for rule in group["rules"] if rule.get("alert") == HASTENED)
    alert["for"] = hastened(alert["for"])
    (folder / config["rule_files"][0]).write_text(yaml.safe_dump(rules))
    return folder / "prometheus.yml"


def hastened(duration: str) -> str:
    """Divide a duration of seconds or minutes by ``HASTE``."""
    seconds = int(duration[:-1]) * {"s": 1, "m": 60}[duration[-1]]
    assert seconds % HASTE == 0
    return f"{seconds // HASTE}s"


@contextlib.contextmanager
def prometheus(targets: Sequence[str], folder: Path) -> Iterator[Prometheus]:
    """Run it until the end of the block; `targets` are the metrics ports."""
    running = Prometheus(url=f"http://127.0.0.1:{lasting_port()}", log=folder / "prometheus.log")
    with running.log.open("wb") as log:
        process = subprocess.Popen(
            [
                command("prometheus"),
                f"--config.file={hastened_files(folder, targets)}",
                f"--web.listen-address={running.url.removeprefix('http://')}",
                f"--storage.tsdb.path={folder / 'data'}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:

        def is_scraping() -> bool:
            assert process.poll() is None, f"prometheus ended; it said\n{running.log.read_text()[-2000:]}"
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                return running.up() == set(targets)
            return False

        until(is_scraping, "prometheus does not scrape all replicas")
        yield running
    finally:
        process.terminate()
        process.wait(30)
