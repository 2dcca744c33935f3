"""The engine as the server sees it: run a job, encode a reference, ask what the model is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from structlog.typing import FilteringBoundLogger

from engine.protocol.framing import Frame, Tensor
from engine.protocol.messages import (
    Failed,
    FailureReason,
    Finished,
    Message,
    Ready,
    Started,
    Submit,
    TickReport,
)
from server.engine_link.connection import Connection
from server.engine_link.launcher import Launcher
from server.engine_link.ledger import Ledger
from server.engine_link.model_facts import encoder_facts, named
from server.engine_link.observer import EngineObserver
from server.engine_link.refusals import Refusals
from server.engine_link.supervisor import Supervisor, SupervisorOptions
from server.engine_link.traces import trace_of, trace_tick
from server.engine_link.work import Encoding, Inbox, Job, Work
from server.errors import EngineUnavailableError, InternalError, LimnerError, PoisonError
from server.references.encoder import EncodedReference, EncoderFacts
from server.tracing.trace import within


class EngineLink:
    """One engine, whichever process it is at the moment. Belongs to one event loop.

    ``on_readiness`` is told whether an engine takes work, whenever that changes. When none came back ``patience``
    seconds after the loss of one, all that waits fails with ``EngineUnavailableError``, and so does what comes before
    the next is ready. ``cannot_start`` is set when the first engine says that none will ever be. ``name`` is what the
    model is served as, in place of what it calls itself.
    """

    def __init__(
        self,
        launcher: Launcher,
        *,
        observer: EngineObserver,
        log: FilteringBoundLogger,
        on_readiness: Callable[[bool], None],
        options: SupervisorOptions,
        patience: float,
        name: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._observer = observer
        self._log = log
        self._on_readiness = on_readiness
        self._patience = patience
        self._clock = clock
        self._ledger = Ledger()
        self._refusals = Refusals()
        self._connection: Connection | None = None
        self._ready: Ready | None = None
        self._giving_up: asyncio.TimerHandle | None = None
        self._gave_up = False
        self._is_stopping = False
        self._supervisor = Supervisor(launcher, self, log, clock, options)
        self._encodings = 0
        self.cannot_start = asyncio.Event()

    def start(self) -> None:
        """Start the engine."""
        self._supervisor.start()

    async def stop(self, *, at_once: bool = False) -> None:
        """Shut the engine down; what is in flight fails."""
        self._is_stopping = True
        await self._supervisor.stop(at_once=at_once)
        self._stop_giving_up()
        self._fail_all("the server is shutting down")

    @property
    def is_ready(self) -> bool:
        """Whether an engine takes work now."""
        return self._connection is not None

    @property
    def name(self) -> str:
        """What requests call the model; empty until an engine has told it, where no name was given."""
        return self._ready.model.name if self._ready is not None else self._name

    @property
    def in_flight(self) -> int:
        """Jobs and encodes that are not done."""
        return len(self._ledger)

    @property
    def pid(self) -> int | None:
        """The engine's process id."""
        return self._supervisor.pid

    def ready(self) -> Ready:
        """Return what the model is and takes, also while an engine that died is replaced.

        Raises ``EngineUnavailableError`` before the first engine is ready, and when none came back for too long.
        """
        if self._ready is not None and self._gave_up:
            raise EngineUnavailableError("the engine is away", retry_after=5.0)
        return self.last_ready()

    def last_ready(self) -> Ready:
        """Return the same however long the engine is away. Raises ``EngineUnavailableError`` before the first one."""
        if self._ready is None:
            raise EngineUnavailableError("the engine is not ready yet")
        return self._ready

    # --- work -------------------------------------------------------------------------------------------------------

    def check(self, submit: Submit, *, deadline: float | None) -> None:
        """Raise what the engine would say of a job, where that is known."""
        self._refusals.check(submit, deadline=deadline, now=self._clock())

    @contextmanager
    def run(
        self, submit: Submit, tokens: NDArray[np.float32] | None, *, deadline: float | None, inbox: Inbox
    ) -> Iterator[Job]:
        """Run a job until the block is left; leaving before its end cancels it in the engine.

        News come to ``inbox`` as ``Frame``, the last one ``Finished``; or, last, a ``LimnerError``. ``deadline`` is in
        seconds of this link's clock.
        """
        self.ready()
        job = Job(submit, tokens, deadline=deadline, inbox=inbox)
        try:
            self._enter(job)
            yield job
        finally:
            job.trace.end("left before its end")
            self._leave(job)

    async def encode(self, pixels: Tensor, adapter: str = "") -> EncodedReference:
        """Encode a preprocessed picture ``[S, S, 3]`` u8 RGB with an adapter; '' is the model's default.

        Raises ``ReferenceEncodingFailed`` and ``LimnerError``.
        """
        self.ready()
        self._encodings += 1
        future: asyncio.Future[EncodedReference] = asyncio.get_running_loop().create_future()
        encoding = Encoding(f"encode-{self._encodings}", pixels, future, adapter=adapter)
        try:
            self._enter(encoding)
            return await future
        finally:
            self._leave(encoding)

    def facts(self, adapter: str = "") -> EncoderFacts:
        """Return what decides a picture's tokens; '' is the model's default adapter.

        Raises ``EngineUnavailableError``, and ``InternalError`` for an adapter that nobody should have asked for.
        """
        model = self.ready().model
        facts = encoder_facts(model, adapter)
        if facts is None:
            self._log.error("adapter_unknown", adapter=adapter, model=model.name)
            raise InternalError()
        return facts

    def _enter(self, work: Work) -> None:
        self._ledger.add(work)
        if self._connection is not None and self._ledger.may_send(work):
            self._send(work, self._connection)

    def _leave(self, work: Work) -> None:
        if self._ledger.remove(work):
            message = work.cancellation()
            if work.sent and message is not None and self._connection is not None:
                self._connection.send(message)
                self._refusals.forget(self._clock())
            self._let_suspects_in(work)

    def _send(self, work: Work, connection: Connection) -> None:
        try:
            frame = work.frame(self._clock())
            connection.send(frame.message, frame.tensor)
            work.sent = True
        except LimnerError as error:
            self._ledger.remove(work)
            work.fail(error)
        except Exception as error:
            # What cannot be framed, too long for the protocol or worse, must not come up again with the next engine.
            self._log.error("work_not_sent", work=work.id, exc_info=error)
            self._ledger.remove(work)
            work.fail(InternalError())

    def _send_all(self, connection: Connection) -> None:
        for work in self._ledger.sendable():
            self._send(work, connection)

    def _let_suspects_in(self, left: Work) -> None:
        if left.deaths and self._connection is not None:
            self._send_all(self._connection)

    # --- what the supervisor tells ----------------------------------------------------------------------------------

    def on_started(self, *, again: bool) -> None:
        """Count the restart."""
        if again:
            self._observer.engine_restarted()

    def on_ready(self, ready: Ready, connection: Connection) -> None:
        """Send everything that waits, the dead engine's work included."""
        if self._name:
            ready = named(ready, self._name)
        if self._ready is not None and self._ready.model.weights_hash != ready.model.weights_hash:
            self._log.error("model_changed", was=self._ready.model.weights_hash, now=ready.model.weights_hash)
        self._stop_giving_up()
        self._gave_up = False
        self._ready = ready
        self._connection = connection
        self._observer.engine_ready(ready)
        self._log.info(
            "engine_ready",
            model=ready.model.name,
            weights=ready.model.weights_hash[:12],
            backend=ready.backend,
            device=ready.device,
            buckets=list(ready.buckets),
            load_seconds=round(ready.load_seconds, 3),
            warmup_seconds=round(ready.warmup_seconds, 3),
        )
        self._send_all(connection)
        self._on_readiness(True)

    def on_lost(self, how: str) -> None:
        """Convict or replay."""
        self._connection = None
        self._refusals.forget(self._clock())
        self._giving_up = asyncio.get_running_loop().call_later(self._patience, self._give_up)
        self._observer.engine_lost()
        self._on_readiness(False)
        if self._is_stopping:
            self._log.info("engine_stopped", how=how)
            return
        convicted, replayed = self._ledger.engine_died()
        if convicted is not None:
            self._observer.job_poisoned()
            self._log.error("job_poisoned", work=convicted.id)
            convicted.fail(PoisonError(convicted.id))
        self._observer.jobs_replayed(replayed)
        self._log.warning("engine_lost", how=how, to_replay=replayed)

    def on_cannot_start(self, how: str) -> None:
        """Say so; the engine's own words are in the log above."""
        self._log.critical("engine_cannot_start", how=how)
        self.cannot_start.set()

    def on_frame(self, frame: Frame) -> None:
        """Observe the message, and route it to its work."""
        work_id: str = getattr(frame.message, "job_id", "") or getattr(frame.message, "request_id", "")
        work = self._ledger.find(work_id)
        with within(trace_of(work)):
            self._observe(frame.message)
        if isinstance(work, Job) and isinstance(frame.message, Failed):
            self._refusals.note(work, frame.message, now=self._clock())
        if work is not None and work.hear(frame):
            self._ledger.remove(work)
            self._let_suspects_in(work)

    def _observe(self, message: Message) -> None:
        match message:
            case TickReport() as report:
                self._observer.tick(report)
                trace_tick(report, self._ledger, model=self.name, now=self._clock())
            case Started(queue_seconds=seconds):
                self._observer.job_started(seconds)
            case Finished() as finished:
                self._observer.job_finished(finished)
            case Failed(job_id=job_id, reason=FailureReason.INTERNAL, message=why):
                self._log.error("job_failed", work=job_id, why=why)

    def _give_up(self) -> None:
        self._giving_up = None
        self._gave_up = True
        self._log.error("engine_away", seconds=self._patience, failing=len(self._ledger))
        self._fail_all("the engine is away")

    def _stop_giving_up(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None

    def _fail_all(self, why: str) -> None:
        for work in self._ledger.remove_all():
            work.fail(EngineUnavailableError(why))
