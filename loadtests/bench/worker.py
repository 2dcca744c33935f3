"""A child process that works on request: one JSON object a line in, one out; the first one out says that it is ready.

Sides of a comparison live in processes of their own, idle while another side is measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self


class Worker:
    """A side of the comparison in a process of its own, which is ready once this is constructed.

    Sides calibrate themselves as they start, so none may start while another does. Raises ``RuntimeError`` when the
    process ends first.
    """

    def __init__(self, module: str, *args: str, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self._read()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and return the answer. Raises ``RuntimeError`` when the process is gone."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Say with an empty object that this process is ready, then answer requests from standard input until it ends."""
    _write({})
    for line in sys.stdin:
        _write(answer(json.loads(line)))


def _write(told: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
