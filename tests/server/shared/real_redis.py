"""A real redis-server on a free loopback port, to stop, pause, fill and spoil."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tests.needs import need
from tools.install import UNPACKED


class RealRedis:
    """The process and a connection to command it."""

    def __init__(self, folder: Path, password: str = "") -> None:
        found = shutil.which("redis-server") or shutil.which("redis-server", path=UNPACKED)
        self._command = [
            need(found, "redis-server"),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            str(folder),
        ]
        self._command += ["--logfile", str(folder / "redis.log"), "--requirepass", password]
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.admin = Redis(port=self.port, password=password or None, protocol=2, retry=Retry(NoBackoff(), 0))

    async def start(self) -> None:
        self._process = subprocess.Popen([*self._command, "--port", str(self.port)])  # noqa: ASYNC220 - at once
        async with asyncio.timeout(20):
            while not await self.answers():
                assert self._process.poll() is None, "redis-server ended; redis.log says why"
                await asyncio.sleep(0.01)

    async def answers(self) -> bool:
        with contextlib.suppress(exceptions.ConnectionError, exceptions.TimeoutError):
            return bool(await self.admin.ping())
        return False

    async def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
            self._process = None
        await self.admin.connection_pool.disconnect()

    def freeze(self, is_frozen: bool) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP if is_frozen else signal.SIGCONT)

    async def hashes(self) -> dict[bytes, dict[bytes, bytes]]:
        """Read every reference that is stored."""
        keys = [key async for key in self.admin.scan_iter("*:references:*", _type="hash")]
        return {key: await self.admin.hgetall(key) for key in keys}


@contextlib.asynccontextmanager
async def real_redis(folder: Path, password: str = "") -> AsyncIterator[RealRedis]:
    redis = RealRedis(folder, password)
    await redis.start()
    try:
        yield redis
    finally:
        await redis.stop()


@contextlib.asynccontextmanager
async def babbler(port: int, babble: bytes) -> AsyncIterator[None]:
    """Listen where Redis did, and answer whatever comes with the same bytes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                writer.write(babble)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port, reuse_address=True)
    try:
        yield
    finally:
        server.close()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: Any = listener.getsockname()[1]
        return int(port)
