"""The engine's loop: the one thread that runs the backend, and between steps owns all the rest."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import torch

from engine.backends.base import Backend
from engine.config import EngineConfig
from engine.protocol.framing import ProtocolError
from engine.protocol.messages import Cancel, EncodeReference, Failed, FailureReason, Shutdown, Submit
from engine.samplers import CoefficientBank, NoiseSchedule
from engine.scheduling import Policy, Scheduler

from .admission import Admission, RefusedError
from .backlog import Backlog
from .decoding import DecodeQueue
from .delivery import Delivery
from .denoiser import Denoiser
from .doorman import Doorman
from .guard import Probe
from .inflight import ImageInFlight
from .jobs import Jobs
from .mailbox import Inbox, Mail
from .newcomers import Newcomers
from .outbox import Emit
from .prompts import PromptCache, PromptDesk
from .references import ReferenceDesk
from .reporting import Reporter
from .rows import RowSlots
from .ticks import Ticks
from .trimming import IdleTrimmer
from .warmup import Calibration

IDLE_SECONDS = 1.0
"""How long an idle loop waits for a message before it reports that it is idle."""


class EngineLoop:
    """Turn after turn: read mail, encode references, run a tick, deliver what is finished, report.

    `clock` is monotonic, in seconds. One thread at a time owns all of it, so it holds no lock: the loop's, or the
    doorman's while that one is in the UNet or the decoder.
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
        works = Probe(backend, calibration.shape).works
        slots = RowSlots(backend)
        decodes: DecodeQueue[ImageInFlight] = DecodeQueue(calibration.decode_plan)
        prompts = PromptDesk(backend, PromptCache(config.prompt_cache_bytes), works)
        self._inbox = inbox
        self._mail: deque[Mail] = deque()
        """What was taken out of the inbox and not handled yet; its first is nothing for the doorman."""
        self._doorman = Doorman(self._has_come, self._attend)
        inbox.tell(self._doorman.knock)
        self._emit = emit
        self._clock = clock
        self._trimmer = IdleTrimmer(clock)
        self._backlog = Backlog(clock)
        self._admission = Admission(backend, bank)
        self._jobs = Jobs(scheduler, slots, decodes, emit, clock)
        self._references = ReferenceDesk(backend, emit, clock, works, batch=config.reference_batch)
        self._delivery = Delivery(backend, decodes, self._jobs, clock, works, self._doorman.lent)
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
            meanwhile=self._doorman.lent,
        )
        self.stopped = False

    @property
    def busy(self) -> bool:
        """Whether anything waits or runs."""
        return bool(self._jobs or self._backlog or self._mail or self._references.waiting)

    def run(self) -> None:
        """Turn until the server says ``Shutdown`` or is gone.

        Raises ``EngineError`` when the process had better die, and ``ProtocolError``.
        """
        self._doorman.start()
        try:
            while not self.stopped:
                self.turn()
        finally:
            self._doorman.stop()

    # The heart.

    def turn(self) -> None:
        """Do one round: at most one tick, one call of the image encoder and a bounded number of decodes."""
        with torch.inference_mode():
            self._read_mail()
            if self.stopped:
                return
            began = self._clock()
            self._references.encode_waiting()
            tick = self._ticks.next()
            seconds = self._ticks.run(tick) if tick is not None else 0.0
            ticked = self._clock()
            self._delivery.decode_due(idle=tick is None)
            ended = self._clock()
            self._ticks.cadence.leave_out(ended - ticked)
            self._reporter.busy_seconds += ended - began
            self._reporter.standing(self._jobs)
            self._reporter.report(tick, seconds, self._references.encoded)

    # The mail.

    def _read_mail(self) -> None:
        if self.busy:
            self._trimmer.worked()
        else:
            self._trimmer.idle()
            self._ticks.cadence.rest()
        self._doorman.check()
        self._mail.extend(self._inbox.drain(0.0 if self.busy else IDLE_SECONDS))
        while self._mail:
            self._handle(self._mail.popleft())
        self.stopped = self.stopped or self._inbox.closed
        if not self.stopped:
            for submit, mail in self._backlog.due():
                self._submit(submit, mail)

    def _has_come(self) -> bool:
        """Say whether the doorman has anything to do."""
        return bool(self._backlog) or (not self._mail and self._inbox.waiting)

    def _attend(self) -> None:
        """Look at one job, on the doorman's thread.

        What ends a job waits for the loop, as it frees what a step reads, and so does all that came after it.
        """
        if not self._backlog:
            self._mail.extend(self._inbox.drain(0.0))
            while self._mail and isinstance(self._mail[0].frame.message, Submit | EncodeReference):
                self._handle(self._mail.popleft())
        if self._backlog:
            with torch.inference_mode():
                self._submit(*self._backlog.next())

    def _handle(self, mail: Mail) -> None:
        match mail.frame.message:
            case Submit() as submit:
                self._backlog.add(submit, mail)
            case Cancel(job_id=job_id):
                self._cancel(job_id)
            case EncodeReference() as reference:
                self._references.add(reference, mail.frame.tensor)
            case Shutdown():
                self.stopped = True
            case message:
                raise ProtocolError(f"a server does not send {type(message).__name__}")

    def _cancel(self, job_id: str) -> None:
        if self._backlog.withdraw(job_id):
            reason = FailureReason.CANCELLED
            self._emit(Failed(job_id=job_id, reason=reason, message="cancelled", phase="queued"))
        else:
            self._jobs.cancel(job_id)

    def _submit(self, submit: Submit, mail: Mail) -> None:
        if submit.job_id in self._jobs:
            raise ProtocolError(f"job {submit.job_id} is in flight already")
        try:
            self._jobs.admit(self._admission.prepare(submit, mail.frame.tensor, mail.arrived))
        except RefusedError as refused:
            self._emit(refused.failed)
