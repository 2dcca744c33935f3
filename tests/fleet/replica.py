"""A ``limner-server`` that may die and come back, always under the same addresses."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.waiting import PATIENCE, until

ROOT = Path(__file__).parents[2]


class Replica:
    """One server of the fleet. ``target`` and ``metrics_target`` are ``host:port`` and outlive its processes."""

    def __init__(self, folder: Path, options: Sequence[str]) -> None:
        folder.mkdir(parents=True)
        self.name = folder.name
        self.log_file = folder / "server.log"
        self._ready_file = folder / "ready.json"
        self._options = options
        port, metrics_port = lasting_port(), lasting_port()
        self.target, self.metrics_target = f"127.0.0.1:{port}", f"127.0.0.1:{metrics_port}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._running().pid

    def start(self) -> None:
        """Start it; its log goes on where the last process ended it."""
        assert self._process is None, f"{self.name} runs already"
        self._ready_file.unlink(missing_ok=True)  # what was killed left it behind
        (port, metrics_port) = (one.rpartition(":")[2] for one in (self.target, self.metrics_target))
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "server", "--port", port, "--metrics-port", metrics_port,
                 "--ready-file", str(self._ready_file), "--log-format", "json", *self._options],
                stderr=log, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    def until_ready(self) -> None:
        """Wait until its engine takes work."""
        until(self._is_ready, f"{self.name} is not ready")

    def stop(self) -> int:
        """Ask it to drain and end, as Kubernetes does, and return its exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it with everything that it was doing."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """Be rid of it, running or not."""
        if self._process is not None:
            self.kill()

    def answered(self) -> set[str]:
        """Return the request ids of all calls that it has answered well."""
        return {line["request_id"] for line in self.lines("call") if line["code"] == "OK"}

    def lines(self, message: str) -> list[dict[str, Any]]:
        """Read lines of its log."""
        # A line that it was killed in the middle of is none.
        whole = [
            line
            for line in self.log_file.read_text().splitlines()
            if line.startswith("{") and line.endswith("}")
        ]
        return [line for line in map(json.loads, whole) if line.get("message") == message]

    def in_flight(self) -> int:
        """Ask its metrics how many generations and uploads it has in flight."""
        with urllib.request.urlopen(f"http://{self.metrics_target}/metrics", timeout=10) as answer:
            found = re.search(r"^limner_requests_in_flight (\S+)$", answer.read().decode(), re.MULTILINE)
        assert found is not None
        return int(float(found[1]))

    def _is_ready(self) -> bool:
        assert self._running().poll() is None, f"{self.name} ended with status {self._running().poll()}"
        return self._ready_file.exists() and bool(json.loads(self._ready_file.read_bytes())["ready"])

    def _end(self, number: signal.Signals) -> int:
        process = self._running()
        process.send_signal(number)
        try:
            status = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            self._process = None
        return status

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"{self.name} does not run"
        return self._process


def lasting_port() -> int:
    """Find a free port that no outgoing connection can be given while its server is away."""
    first_ephemeral = 32768  # Linux; the port 0 would be one of those
    while True:
        port = random.randrange(20000, first_ephemeral)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
