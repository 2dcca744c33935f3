"""What the engine says about itself: where jobs stand, how far they are, and a report a tick."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import psutil

from engine.protocol.messages import Step, TickReport
from engine.scheduling import Estimate, Scheduler, Tick

from .inflight import JobInFlight
from .outbox import Emit

VITALS_SECONDS = 1.0
"""Memory is read this often; reading it costs more than a small tick may."""

STANDING_SECONDS = 0.5
"""Waiting jobs hear where they stand no more often than this: it takes a forecast of all that is in flight."""

NOTICEABLE = 0.2
"""A finish that moved by more than this share of what was told is told again."""


class Reporter:
    """Send ``Queued`` again, ``Step`` and ``TickReport``."""

    def __init__(self, scheduler: Scheduler, emit: Emit, clock: Callable[[], float]) -> None:
        self._scheduler = scheduler
        self._emit = emit
        self._clock = clock
        self._process = psutil.Process()
        self._resident = 0
        self._read_at = float("-inf")
        self._reported_at = self._standing_at = clock()
        self.busy_seconds = 0.0

    def standing(self, jobs: Iterable[JobInFlight]) -> None:
        """Send ``Queued`` to jobs that want progress, had no tick yet, and stand elsewhere than they were told."""
        now = self._clock()
        if now - self._standing_at < STANDING_SECONDS:
            return
        self._standing_at = now
        waiting = [job for job in jobs if job.submit.progress and job.started is None]
        estimates = self._scheduler.estimates() if waiting else {}
        for job in waiting:
            estimate = estimates[job.id]
            if job.told is None or _differs(estimate, job.told):
                self._emit(job.queued(estimate))

    def progress(self, jobs: Iterable[JobInFlight]) -> None:
        """Send ``Step`` for jobs of which every image has a further step behind it: each, or just the last."""
        for job in jobs:
            step, steps = min(image.step for image in job.images), job.submit.steps
            if step > job.step and (job.submit.progress or step == steps):
                job.step = step
                self._emit(Step(job_id=job.id, step=step, steps=steps))

    def report(self, tick: Tick | None, seconds: float, encoded_references: int) -> None:
        """Send what a tick of `seconds` did; without a tick, say about once a second that there was none."""
        now = self._clock()
        if tick is None and now - self._reported_at < VITALS_SECONDS:
            return
        self._reported_at = now
        snapshot = self._scheduler.snapshot()
        self._emit(
            TickReport(
                bucket=0 if tick is None else tick.bucket,
                useful_rows=0 if tick is None else tick.rows,
                seconds=seconds,
                waiting=snapshot.waiting,
                running=snapshot.running + snapshot.preempted,
                oldest_wait_seconds=snapshot.oldest_wait_seconds,
                busy_seconds=self.busy_seconds,
                encoded_references=encoded_references,
                resident_bytes=self._resident_bytes(now),
                cpu_seconds=time.process_time(),
                jobs=() if tick is None else tuple(dict.fromkeys(item.job_id for item in tick.items)),
            )
        )

    def _resident_bytes(self, now: float) -> int:
        if now - self._read_at >= VITALS_SECONDS:
            self._resident = self._process.memory_info().rss
            self._read_at = now
        return self._resident


def _differs(estimate: Estimate, told: Estimate) -> bool:
    moved = abs(estimate.finishes_in - told.finishes_in)
    return estimate.position != told.position or moved > NOTICEABLE * told.finishes_in
