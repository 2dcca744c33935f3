"""``limner-server`` in a process of its own, for tests that must see it whole."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from limner.v1.portrait_pb2 import PortraitSpec
from limner.v1.portrait_service_pb2 import GenerateRequest
from limner.v1.portrait_service_pb2_grpc import PortraitServiceStub

ROOT = Path(__file__).parents[2]
PATIENCE = 240.0


class Process:
    def __init__(self, arguments: list[str], folder: Path, module: str) -> None:
        self.ready_file = folder / "ready.json"
        self.log_file = folder / "server.log"
        self.began = time.monotonic()
        flags = [
            "--port",
            "0",
            "--metrics-port",
            "0",
            "--ready-file",
            str(self.ready_file),
            "--drain-notice-seconds",
            "0.2",
        ]
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *flags, *arguments],
                stderr=log,
                cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )

    def told(self) -> dict[str, Any]:
        return (
            json.loads(self.ready_file.read_bytes())
            if self.ready_file.exists()
            else {"ready": False, "grpc": []}
        )

    def until(self, condition: Any) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.poll() is None, self.end_of_log()
            assert time.monotonic() < end, self.end_of_log()
            time.sleep(0.01)

    def channel(self) -> grpc.Channel:
        self.until(lambda: self.told()["grpc"])
        return grpc.insecure_channel(self.told()["grpc"][0])

    def until_ready(self) -> None:
        self.until(lambda: self.told()["ready"])

    def lines(self, message: str = "") -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log_file.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if not message or line.get("message") == message]

    def metrics(self) -> str:
        return urllib.request.urlopen(self.told()["metrics"]).read().decode()

    def in_flight(self) -> float:
        match = re.search(r"^limner_requests_in_flight (\S+)$", self.metrics(), re.MULTILINE)
        assert match is not None
        return float(match[1])

    def end_of_log(self) -> str:
        return self.log_file.read_text()[-4000:]

    def engine_pid(self) -> int:
        pid = self.lines("engine_started")[-1]["pid"]
        assert isinstance(pid, int)
        return pid

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@contextmanager
def process(folder: Path, *arguments: str, module: str = "tests.server.serve_fake") -> Iterator[Process]:
    running = Process(list(arguments), folder, module)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def generate(channel: grpc.Channel, prompt: str = "a sailor", **fields: Any) -> Any:
    request = GenerateRequest(portrait=PortraitSpec(prompt=prompt, **fields))
    return PortraitServiceStub(channel).Generate(request, timeout=PATIENCE)
