"""The engines of a model as the server sees them: run a job, encode a reference, ask what the model is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
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
from server.engine_link.choice import choose_engine
from server.engine_link.engine import Engine
from server.engine_link.ledger import Ledger
from server.engine_link.model_facts import encoder_facts
from server.engine_link.traces import trace_of, trace_tick
from server.engine_link.work import Encoding, Inbox, Job, Work
from server.errors import EngineUnavailableError, InternalError, LimnerError, PoisonError
from server.references.encoder import EncodedReference, EncoderFacts
from server.tracing.trace import within


class EngineLink:
    """One model, and the engines that run it: one a device. Belongs to one event loop.

    Work goes to the engine that has the least to do (``choose_engine``) and stays there; when that one dies, what it
    had goes to the others, or waits for the next. ``on_readiness`` is told whether the model can be asked for, whenever
    that may have changed. When no engine came back ``patience`` seconds after the loss of the last one, all that waits
    fails with ``EngineUnavailableError``, and so does what comes before one is ready. ``cannot_start`` is set when an
    engine says that it will never be. ``name`` is what the model is called until an engine has told it.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        *,
        log: FilteringBoundLogger,
        on_readiness: Callable[[bool], None],
        patience: float,
        name: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.engines = tuple(engines)
        self._name = name
        self._log = log
        self._on_readiness = on_readiness
        self._patience = patience
        self._clock = clock
        self._ledger = Ledger()
        self._ready: Ready | None = None
        self._giving_up: asyncio.TimerHandle | None = None
        self._gave_up = False
        self._is_stopping = False
        self._encodings = 0
        self.cannot_start = asyncio.Event()

    def start(self) -> None:
        """Start the engines."""
        for engine in self.engines:
            engine.start(self)

    async def stop(self, *, at_once: bool = False) -> None:
        """Shut the engines down; what is in flight fails."""
        self._is_stopping = True
        await asyncio.gather(*(engine.stop(at_once=at_once) for engine in self.engines))
        self._stop_giving_up()
        self._fail_all("the server is shutting down")

    @property
    def is_ready(self) -> bool:
        """Whether the model can be asked for: every engine has been ready, and at least one is."""
        return all(engine.was_ready for engine in self.engines) and bool(self._takers())

    @property
    def name(self) -> str:
        """What requests call the model; empty until an engine has told it, where no name was given."""
        return self._ready.model.name if self._ready is not None else self._name

    @property
    def in_flight(self) -> int:
        """Jobs and encodes that are not done."""
        return len(self._ledger)

    def ready(self) -> Ready:
        """Return what the model is and takes, also while engines that died are replaced.

        Raises ``EngineUnavailableError`` before the first engine is ready, and when none came back for too long.
        """
        if self._ready is not None and self._gave_up:
            raise EngineUnavailableError("the engine is away", retry_after=5.0)
        return self.last_ready()

    def last_ready(self) -> Ready:
        """Return the same however long they are away. Raises ``EngineUnavailableError`` before the first is ready."""
        if self._ready is None:
            raise EngineUnavailableError("the engine is not ready yet")
        return self._ready

    # --- work -------------------------------------------------------------------------------------------------------

    def check(self, submit: Submit, *, deadline: float | None) -> None:
        """Raise what every engine would say of a job, where that is known."""
        now = self._clock()
        told = [engine.refusals.of(submit, deadline=deadline, now=now) for engine in self._takers()]
        refusals = [refusal for refusal in told if refusal is not None]
        if refusals and len(refusals) == len(told):
            raise min(refusals, key=lambda refusal: refusal.retry_after or 0.0)

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
        if self._ledger.may_send(work):
            self._send(work)

    def _leave(self, work: Work) -> None:
        engine = work.sent_to
        if self._ledger.remove(work):
            message = work.cancellation()
            if engine is not None and message is not None:
                engine.cancel(message, now=self._clock())
            self._let_suspects_in(work)

    def _send(self, work: Work) -> None:
        engine = choose_engine(self._takers(), work, self._ledger, now=self._clock())
        if engine is None:
            return
        try:
            engine.send(work.frame(self._clock()))
            work.sent_to = engine
        except LimnerError as error:
            self._ledger.remove(work)
            work.fail(error)
        except Exception as error:
            # What cannot be framed, too long for the protocol or worse, must not come up again with the next engine.
            self._log.error("work_not_sent", work=work.id, exc_info=error)
            self._ledger.remove(work)
            work.fail(InternalError())

    def _send_all(self) -> None:
        for work in self._ledger.sendable():
            self._send(work)

    def _let_suspects_in(self, left: Work) -> None:
        if left.deaths:
            self._send_all()

    def _takers(self) -> list[Engine]:
        return [engine for engine in self.engines if engine.is_ready]

    # --- what the engines tell --------------------------------------------------------------------------------------

    def engine_ready(self, engine: Engine, ready: Ready) -> None:
        """Send everything that waits, the dead engine's work included."""
        if self._ready is not None and self._ready.model.weights_hash != ready.model.weights_hash:
            engine.log.error(
                "model_changed", was=self._ready.model.weights_hash, now=ready.model.weights_hash
            )
        self._stop_giving_up()
        self._gave_up = False
        self._ready = ready
        self._send_all()
        self._on_readiness(self.is_ready)

    def engine_lost(self, engine: Engine, how: str) -> None:
        """Convict or replay."""
        engine.refusals.forget(self._clock())
        if not self._takers():
            self._stop_giving_up()
            self._giving_up = asyncio.get_running_loop().call_later(self._patience, self._give_up)
        self._on_readiness(self.is_ready)
        if self._is_stopping:
            engine.log.info("engine_stopped", how=how)
            return
        convicted, replayed = self._ledger.engine_died(engine)
        if convicted is not None:
            engine.observer.job_poisoned()
            engine.log.error("job_poisoned", work=convicted.id)
            convicted.fail(PoisonError(convicted.id))
        engine.observer.jobs_replayed(replayed)
        engine.log.warning("engine_lost", how=how, to_replay=replayed)
        # Not before it is known who else has died: what takes one engine often takes all, and a job that is sent to a
        # dead one has a death too many.
        asyncio.get_running_loop().call_soon(self._send_all)

    def engine_cannot_start(self) -> None:
        """Have the server end."""
        self.cannot_start.set()

    def engine_said(self, engine: Engine, frame: Frame) -> None:
        """Observe the message, and route it to its work."""
        work_id: str = getattr(frame.message, "job_id", "") or getattr(frame.message, "request_id", "")
        work = self._ledger.find(work_id)
        with within(trace_of(work)):
            self._observe(engine, frame.message)
        if isinstance(work, Job) and isinstance(frame.message, Failed):
            engine.refusals.note(work, frame.message, now=self._clock())
        if work is not None and work.hear(frame):
            self._ledger.remove(work)
            self._let_suspects_in(work)

    def _observe(self, engine: Engine, message: Message) -> None:
        match message:
            case TickReport() as report:
                engine.observer.tick(report)
                trace_tick(report, self._ledger, model=self.name, now=self._clock())
            case Started(queue_seconds=seconds):
                engine.observer.job_started(seconds)
            case Finished() as finished:
                engine.observer.job_finished(finished)
            case Failed(job_id=job_id, reason=FailureReason.INTERNAL, message=why):
                engine.log.error("job_failed", work=job_id, why=why)

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
