"""Start an engine process with one end of a socket pair."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Protocol


class EngineProcess(Protocol):
    """A started engine."""

    @property
    def pid(self) -> int:
        """The process id; 0 for an engine in a thread of the test process."""
        ...

    @property
    def socket(self) -> socket.socket:
        """The server's end; ``Connection.open`` takes it over."""
        ...

    @property
    def exit_status(self) -> int | None:
        """The status that it exited with; None while it runs and after a signal ended it."""
        ...

    async def wait(self) -> str:
        """Wait for its end and say how it ended."""
        ...

    def kill(self) -> None:
        """End it at once; nothing happens if it has ended."""
        ...


class Launcher(Protocol):
    """Starts engines."""

    async def launch(self) -> EngineProcess:
        """Start one. Raises ``OSError``."""
        ...


class SpawnedEngine:
    """An engine in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, end: socket.socket) -> None:
        self._process = process
        self._socket = end

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def socket(self) -> socket.socket:
        """The server's end."""
        return self._socket

    @property
    def exit_status(self) -> int | None:
        """The status that it exited with; None while it runs and after a signal ended it."""
        status = self._process.returncode
        return status if status is not None and status >= 0 else None

    async def wait(self) -> str:
        """Wait for its end and say how it ended."""
        status = await self._process.wait()
        return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"

    def kill(self) -> None:
        """Send SIGKILL, to its children as well."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


class ProcessLauncher:
    """Starts ``python -m engine serve`` with ``arguments``, in a session of its own so that Ctrl-C is ours alone."""

    def __init__(self, arguments: Sequence[str], *, module: str = "engine") -> None:
        self._arguments = tuple(arguments)
        self._module = module

    async def launch(self) -> SpawnedEngine:
        """Start one; what it prints goes to our standard error. Raises ``OSError``."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", self._module, "serve", "--socket-fd", str(theirs.fileno()), *self._arguments,
                    pass_fds=[theirs.fileno()],
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=2,
                    start_new_session=True,
                )  # fmt: skip
        except BaseException:
            ours.close()
            raise
        return SpawnedEngine(process, ours)
