"""A file that tells scripts and tests where the server listens and whether it is ready."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """What is in the file. ``grpc`` are addresses to dial, as is ``health``; ``metrics`` is a URL. Empty: none."""

    pid: int
    grpc: Sequence[str]
    health: str
    metrics: str
    ready: bool


class ReadyFile:
    """Keeps the file up to date; every version replaces the last one whole. An empty path keeps none."""

    def __init__(self, path: str) -> None:
        self._path = Path(path) if path else None
        self._listening = Listening(pid=os.getpid(), grpc=(), health="", metrics="", ready=False)

    def listening(self, grpc: Sequence[str], *, health: str, metrics: str) -> None:
        """Write where the server listens."""
        self._write(replace(self._listening, grpc=grpc, health=health, metrics=metrics))

    def ready(self, is_ready: bool) -> None:
        """Write whether it is ready."""
        self._write(replace(self._listening, ready=is_ready))

    def remove(self) -> None:
        """Remove the file."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _write(self, listening: Listening) -> None:
        self._listening = listening
        if self._path is not None:
            draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
            draft.write_bytes(msgspec.json.encode(listening))
            draft.replace(self._path)
