"""The engine's loop: the one thread that owns the scheduler and the backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from engine.backends.base import Backend
from engine.config import EngineConfig
from engine.protocol.framing import Frame, ProtocolError, Tensor
from engine.protocol.messages import Cancel, EncodeReference, Shutdown, Submit
from engine.samplers import CoefficientBank, NoiseSchedule
from engine.scheduling import Policy, Scheduler

from .admission import Admission, RefusedError
from .decoding import DecodeQueue
from .delivery import Delivery
from .denoiser import Denoiser
from .guard import Probe
from .jobs import Jobs
from .mailbox import Inbox
from .newcomers import Newcomers
from .outbox import Emit
from .prompts import PromptCache, PromptDesk
from .references import ReferenceDesk
from .reporting import Reporter
from .rows import RowSlots
from .ticks import Ticks
from .warmup import Calibration

IDLE_SECONDS = 1.0
"""How long an idle loop waits for a message before it reports that it is idle."""


class EngineLoop:
    """Turn after turn: read mail, encode references, run a tick, deliver what is finished, report.

    `clock` is monotonic, in seconds. Owned by one thread, and holds no lock.
    """

    def __init__(
        self,
        *,
        backend: Backend,
        buckets: Sequence[int],
        calibration: Calibration,
        config: EngineConfig,
        inbox: Inbox,
        emit: Emit,
        clock: Callable[[], float],
    ) -> None:
        bank = CoefficientBank(
            NoiseSchedule.from_config(backend.facts.scheduler_config), device=backend.device
        )
        policy = Policy(
            deterministic_bucket=config.deterministic_bucket_of(buckets),
            max_waiting=config.max_waiting,
            aging_seconds=config.aging_seconds,
            headroom=config.headroom,
            finish_seconds=calibration.decode_seconds_each,
        )
        scheduler = Scheduler(clock, buckets, calibration.costs, policy)
        works = Probe(backend, calibration.probe_shape).works
        slots = RowSlots(backend)
        decodes = DecodeQueue(calibration.decode_plan)
        prompts = PromptDesk(backend, PromptCache(config.prompt_cache_bytes), works)
        self._inbox = inbox
        self._emit = emit
        self._clock = clock
        self._admission = Admission(backend, bank, clock)
        self._jobs = Jobs(scheduler, slots, decodes, emit, clock)
        self._references = ReferenceDesk(backend, emit, clock, works, batch=config.reference_batch)
        self._delivery = Delivery(backend, decodes, self._jobs, clock, works)
        self._reporter = Reporter(scheduler, emit, clock)
        self._ticks = Ticks(
            scheduler=scheduler,
            jobs=self._jobs,
            newcomers=Newcomers(backend, slots, prompts, emit, clock, works),
            denoiser=Denoiser(backend, bank),
            preview=calibration.preview,
            reporter=self._reporter,
            emit=emit,
            clock=clock,
            works=works,
        )
        self.stopped = False

    def run(self) -> None:
        """Turn until the server says ``Shutdown`` or is gone.

        Raises ``EngineError`` when the process had better die, and ``ProtocolError``.
        """
        while not self.stopped:
            self.turn()

    # The heart.

    def turn(self) -> None:
        """Do one round: at most one tick, one call of the image encoder and a bounded number of decodes."""
        with torch.inference_mode():
            self._read_mail()
            began = self._clock()
            self._references.encode_waiting()
            tick = self._ticks.next()
            seconds = self._ticks.run(tick) if tick is not None else 0.0
            self._delivery.decode_due(idle=tick is None)
            self._reporter.busy_seconds += self._clock() - began
            self._reporter.report(tick, seconds, self._references.encoded)

    # The mail.

    def _read_mail(self) -> None:
        idle = not self._jobs and not self._references.waiting
        for frame in self._inbox.drain(IDLE_SECONDS if idle else 0.0):
            self._handle(frame)
        self.stopped = self.stopped or self._inbox.closed

    def _handle(self, frame: Frame) -> None:
        match frame.message:
            case Submit() as submit:
                self._submit(submit, frame.tensor)
            case Cancel(job_id=job_id):
                self._jobs.cancel(job_id)
            case EncodeReference() as reference:
                self._references.add(reference, frame.tensor)
            case Shutdown():
                self.stopped = True
            case message:
                raise ProtocolError(f"a server does not send {type(message).__name__}")

    def _submit(self, submit: Submit, tokens: Tensor | None) -> None:
        if submit.job_id in self._jobs:
            raise ProtocolError(f"job {submit.job_id} is in flight already")
        try:
            self._jobs.admit(self._admission.prepare(submit, tokens))
        except RefusedError as refused:
            self._emit(refused.failed)
