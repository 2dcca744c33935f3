"""One engine of a model, whichever process it is at the moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from structlog.typing import FilteringBoundLogger

from engine.protocol.framing import Frame
from engine.protocol.messages import Message, Ready
from server.engine_link.connection import Connection
from server.engine_link.launcher import Launcher
from server.engine_link.model_facts import named
from server.engine_link.observer import EngineObserver
from server.engine_link.refusals import Refusals
from server.engine_link.supervisor import Supervisor, SupervisorOptions


class EngineWatcher(Protocol):
    """Who is told what becomes of an engine; ``EngineLink`` is one."""

    def engine_ready(self, engine: Engine, ready: Ready) -> None:
        """It takes work."""
        ...

    def engine_said(self, engine: Engine, frame: Frame) -> None:
        """It has news."""
        ...

    def engine_lost(self, engine: Engine, how: str) -> None:
        """It is gone, and what it had with it; another process will take its place."""
        ...

    def engine_cannot_start(self) -> None:
        """It will never be ready."""
        ...


class Engine:
    """A place for one engine process: on its device, with its metrics and its lines in the log.

    ``name`` is what the model is served as, in place of what it calls itself.
    """

    def __init__(
        self,
        launcher: Launcher,
        *,
        observer: EngineObserver,
        log: FilteringBoundLogger,
        options: SupervisorOptions,
        name: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.observer = observer
        self.log = log
        self.refusals = Refusals()
        self.was_ready = False
        """Whether a process ever was."""
        self.seconds_a_row = 1.0
        """What a row of a step takes at its best bucket, at the model's own size."""
        self._name = name
        self._watcher: EngineWatcher | None = None
        self._connection: Connection | None = None
        self._supervisor = Supervisor(launcher, self, log, clock, options)

    def start(self, watcher: EngineWatcher) -> None:
        """Start the process, and another one whenever it dies."""
        self._watcher = watcher
        self._supervisor.start()

    async def stop(self, *, at_once: bool = False) -> None:
        """Shut the process down, and start no other."""
        await self._supervisor.stop(at_once=at_once)

    @property
    def is_ready(self) -> bool:
        """Whether it takes work now."""
        return self._connection is not None

    def send(self, frame: Frame) -> None:
        """Send a message. Raises ``ProtocolError`` for one that no frame can hold."""
        if self._connection is not None:
            self._connection.send(frame.message, frame.tensor)

    def cancel(self, message: Message, *, now: float) -> None:
        """Send the cancellation of a job, which leaves room for others."""
        self.send(Frame(message=message, tensor=None))
        self.refusals.forget(now)

    # --- what the supervisor tells ----------------------------------------------------------------------------------

    def on_started(self, *, again: bool) -> None:
        """Count the restart."""
        if again:
            self.observer.engine_restarted()

    def on_ready(self, ready: Ready, connection: Connection) -> None:
        """Take work."""
        if self._name:
            ready = named(ready, self._name)
        self._connection, self.was_ready = connection, True
        rates = [seconds / int(bucket) for bucket, seconds in ready.tick_seconds.items()]
        self.seconds_a_row = min(rates, default=0.0) or 1.0
        self.observer.engine_ready(ready)
        self.log.info(
            "engine_ready",
            model=ready.model.name,
            weights=ready.model.weights_hash[:12],
            backend=ready.backend,
            device=ready.device,
            buckets=list(ready.buckets),
            load_seconds=round(ready.load_seconds, 3),
            warmup_seconds=round(ready.warmup_seconds, 3),
        )
        self._told.engine_ready(self, ready)

    def on_frame(self, frame: Frame) -> None:
        """Pass it on."""
        self._told.engine_said(self, frame)

    def on_closed(self) -> None:
        """Take no work until the next process is ready: this one may need a moment to end."""
        self._connection = None

    def on_lost(self, how: str) -> None:
        """Say so."""
        self._told.engine_lost(self, how)
        self.observer.engine_lost()

    def on_cannot_start(self, how: str) -> None:
        """Say so; the engine's own words are in the log above."""
        self.log.critical("engine_cannot_start", how=how)
        self._told.engine_cannot_start()

    @property
    def _told(self) -> EngineWatcher:
        assert self._watcher is not None, "an engine speaks before it is started"
        return self._watcher
