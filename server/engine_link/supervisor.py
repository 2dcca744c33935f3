"""Keeps one engine process alive: start, wait until it is ready, listen, replace it when it dies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from structlog.typing import FilteringBoundLogger

from engine.protocol.framing import Frame, ProtocolError
from engine.protocol.messages import Loading, Ready, Shutdown
from server.engine_link.backoff import Backoff
from server.engine_link.connection import Connection
from server.engine_link.launcher import EngineProcess, Launcher

CANNOT_START = 2
"""The exit status of an engine that would end the same way at every start (``docs/engine-protocol.md``)."""

EXIT_SECONDS = 1.0
"""For a process that closed its socket to end, before it is killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorOptions:
    """All in seconds; ``stall_timeout`` 0 never gives up on a silent engine."""

    start_timeout: float = 900.0
    stall_timeout: float = 300.0
    stop_timeout: float = 5.0
    restart_delay: float = 0.2
    restart_delay_max: float = 30.0


class EngineEvents(Protocol):
    """Who is told about the engine's life."""

    def on_started(self, *, again: bool) -> None:
        """A process was started; ``again`` when it replaces a dead one."""
        ...

    def on_ready(self, ready: Ready, connection: Connection) -> None:
        """The engine takes work."""
        ...

    def on_frame(self, frame: Frame) -> None:
        """The engine said something."""
        ...

    def on_closed(self) -> None:
        """A ready engine has closed its socket, or is given up: it takes no more work. ``on_lost`` follows."""
        ...

    def on_lost(self, how: str) -> None:
        """A ready engine is gone."""
        ...

    def on_cannot_start(self, how: str) -> None:
        """The first engine cannot start at all, and none is tried after it."""
        ...


class Supervisor:
    """Runs engines one after the other until it is stopped, or until the first one says that none can start."""

    def __init__(
        self,
        launcher: Launcher,
        events: EngineEvents,
        log: FilteringBoundLogger,
        clock: Callable[[], float],
        options: SupervisorOptions,
    ) -> None:
        self._launcher = launcher
        self._events = events
        self._log = log
        self._clock = clock
        self._options = options
        self._connection: Connection | None = None
        self._process: EngineProcess | None = None
        self._is_ready = False
        self._was_ready = False
        """Whether any engine ever was."""
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the first engine."""
        self._task = asyncio.create_task(self._run(), name="engine supervisor")

    async def stop(self, *, at_once: bool = False) -> None:
        """Tell the engine to exit, kill it if it is not ready or doesn't in time, and start no other."""
        if self._task is None:
            return
        self._stopping.set()
        if self._connection is not None and self._is_ready and not at_once:
            self._connection.send(Shutdown())
            await asyncio.wait([self._task], timeout=self._options.stop_timeout)
        if self._process is not None:
            self._process.kill()
        self._task.cancel()
        await asyncio.wait([self._task])
        self._task = None

    async def _run(self) -> None:
        backoff = Backoff(
            first_seconds=self._options.restart_delay, max_seconds=self._options.restart_delay_max
        )
        again = False
        while not self._stopping.is_set():
            try:
                lived = await self._live(again=again)
            except Exception as error:
                self._log.error("supervision_failed", exc_info=error)
                lived = 0.0
            again = True
            if not self._stopping.is_set():
                wait = backoff.after_life_of(lived)
                self._log.warning("engine_restarting", in_seconds=round(wait, 3))
                await asyncio.sleep(wait)

    async def _live(self, *, again: bool) -> float:
        """Live through one engine's life; return the seconds for which it was ready."""
        try:
            process = await self._launcher.launch()
        except Exception as error:
            self._log.error(
                "engine_not_started",
                error=str(error),
                exc_info=None if isinstance(error, OSError) else error,
            )
            return 0.0
        self._process = process
        connection: Connection | None = None
        ready_at: float | None = None
        why, grace = "closed its socket", EXIT_SECONDS
        try:
            self._events.on_started(again=again)
            self._log.info("engine_started", pid=process.pid)
            connection = self._connection = await Connection.open(process.socket)
            ready = await self._wait_until_ready(connection)
            if ready is not None:
                ready_at, self._is_ready, self._was_ready = self._clock(), True, True
                self._events.on_ready(ready, connection)
                await self._listen(connection)
        except ProtocolError as error:
            why, grace = f"broke the protocol: {error}", 0.0
        except TimeoutError:
            why = "was silent for too long" if ready_at is not None else "was not ready in time"
            grace = 0.0
        except Exception as error:
            # Whatever it is, one engine pays for it and not the supervision of all that come after.
            self._log.error("engine_link_failed", pid=process.pid, exc_info=error)
            why, grace = "a fault of the server's own", 0.0
        finally:
            self._connection, self._is_ready = None, False
            if ready_at is not None:
                self._events.on_closed()
            how = await self._end(process, connection, grace)
            self._process = None
            if ready_at is not None:
                self._events.on_lost(how)
            if not self._stopping.is_set():
                event = "engine_died" if ready_at is not None else "engine_failed_to_load"
                self._log.error(event, pid=process.pid, why=why, how=how)
                if process.exit_status == CANNOT_START and not self._was_ready:
                    self._stopping.set()
                    self._events.on_cannot_start(how)
        return self._clock() - ready_at if ready_at is not None else 0.0

    async def _wait_until_ready(self, connection: Connection) -> Ready | None:
        async with asyncio.timeout(self._options.start_timeout):
            while (frame := await connection.receive()) is not None:
                match frame.message:
                    case Ready() as ready:
                        return ready
                    case Loading(phase=phase):
                        self._log.info("engine_loading", phase=phase)
                    case _:
                        pass
        return None

    async def _listen(self, connection: Connection) -> None:
        """Pass frames on until the engine closes. Raises ``TimeoutError`` when it stalls, from the first moment on."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._options.stall_timeout or None) as stalled:
            while (frame := await connection.receive()) is not None:
                if self._options.stall_timeout:
                    stalled.reschedule(loop.time() + self._options.stall_timeout)
                self._events.on_frame(frame)

    async def _end(self, process: EngineProcess, connection: Connection | None, grace: float) -> str:
        """Make sure that the process is gone, and say how it went; for ``grace`` seconds it may go by itself."""
        try:
            async with asyncio.timeout(grace):
                return await process.wait()
        except TimeoutError:
            process.kill()
            return f"{await process.wait()} from the server"
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        finally:
            if connection is not None:
                connection.close()
            else:
                process.socket.close()
