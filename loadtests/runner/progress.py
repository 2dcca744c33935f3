"""The live line: what a run is doing just now."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TextIO

import numpy as np

from loadtests.runner.generator import Generator
from loadtests.runner.record import Record
from loadtests.runner.target import Status

WINDOW_SECONDS = 10.0
TERMINAL_PERIOD = 0.5
LOG_PERIOD = 10.0


class Progress:
    """Keeps the answers of the last seconds and writes a line about them: in place on a terminal, else now and then."""

    def __init__(self, out: TextIO, seconds: float) -> None:
        self._out = out
        self._seconds = seconds
        self._recent: deque[Record] = deque()
        self._counts: dict[Status, int] = dict.fromkeys(Status, 0)

    def add(self, record: Record) -> None:
        """Take note of an answer."""
        self._recent.append(record)
        self._counts[record.status] += 1

    async def run(self, generator: Generator) -> None:
        """Write until cancelled."""
        terminal = self._out.isatty()
        while True:
            await asyncio.sleep(TERMINAL_PERIOD if terminal else LOG_PERIOD)
            line = self.line(generator.now, generator.in_flight)
            self._out.write(f"\r\x1b[K{line}" if terminal else f"{line}\n")
            self._out.flush()

    def end(self) -> None:
        """Leave the line behind."""
        if self._out.isatty():
            self._out.write("\r\x1b[K")

    def line(self, now: float, in_flight: int) -> str:
        """Say what happened so far, and the rate and latencies of the last seconds."""
        while self._recent and self._recent[0].done < now - WINDOW_SECONDS:
            self._recent.popleft()
        good = [one for one in self._recent if one.status is Status.OK]
        images = sum(one.images for one in good) / max(1e-9, min(now, WINDOW_SECONDS))
        told = [f"{now:6.1f} of {self._seconds:.0f} s", f"{in_flight} in flight", f"{images:.2f} images/s"]
        if good:
            p50, p99 = np.quantile([one.latency for one in good], (0.5, 0.99))
            told.append(f"p50 {p50:.2f} s, p99 {p99:.2f} s")
        told += [f"{count} {status}" for status, count in self._counts.items() if count]
        return "  ".join(told)
