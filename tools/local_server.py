"""A server of one's own on free loopback ports, for the demo, the benchmarks and the tests."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_SECONDS = 180.0
STOP_SECONDS = 60.0
POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalServer:
    """A running server. ``bound_seconds`` and ``ready_seconds`` count from the start of its process."""

    target: str
    metrics_url: str
    pid: int
    bound_seconds: float
    ready_seconds: float


@contextlib.contextmanager
def local_server(*options: str, log: Path | None = None) -> Iterator[LocalServer]:
    """Start ``limner-server`` with `options`, wait until it takes requests, and stop it gracefully in the end.

    Its log goes to `log`, or to standard error. Raises ``RuntimeError`` when it ends or does not get ready.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        ready_file = Path(folder) / "ready.json"
        sink = stack.enter_context(log.open("wb")) if log else None
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "server", "--port", "0", "--metrics-port", "0", "--ready-file", str(ready_file),
             *options],
            stderr=sink, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        stack.callback(_stop, process)

        def state(enough: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
            while time.perf_counter() - start < START_SECONDS:
                if process.poll() is not None:
                    raise RuntimeError(f"the server ended with status {process.returncode}{_tail(log)}")
                if ready_file.exists():
                    told: dict[str, Any] = json.loads(ready_file.read_text())
                    if enough(told):
                        return told
                time.sleep(POLL_SECONDS)
            raise RuntimeError(f"the server was not ready after {START_SECONDS:.0f} s{_tail(log)}")

        state(lambda told: True)
        bound = time.perf_counter() - start
        told = state(lambda told: bool(told["ready"]))
        yield LocalServer(
            target=told["grpc"][0],
            metrics_url=told["metrics"],
            pid=told["pid"],
            bound_seconds=bound,
            ready_seconds=time.perf_counter() - start,
        )


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(log: Path | None) -> str:
    return f"; its log ends with\n{log.read_text()[-2000:]}" if log else "; its log is above"
