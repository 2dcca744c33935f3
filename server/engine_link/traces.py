"""Whose trace a message of the engine's belongs to."""

from __future__ import annotations

from engine.protocol.messages import TickReport
from server.engine_link.ledger import Ledger
from server.engine_link.work import Job, Work
from server.tracing.trace import NO_TRACE, Trace


def trace_of(work: Work | None) -> Trace:
    """Return the trace of the call that this work is for; that of an encode is its library's to tell."""
    return work.trace.trace if isinstance(work, Job) else NO_TRACE


def trace_tick(report: TickReport, ledger: Ledger, *, model: str, now: float) -> None:
    """Tell a tick once, and to every traced job that it ran."""
    found = (ledger.find(job_id) for job_id in report.jobs)
    traces = [job.trace for job in found if isinstance(job, Job) and job.trace.trace.is_recorded]
    if traces:
        tick = traces[0].trace.tick(
            began=now - report.seconds,
            ended=now,
            attributes={
                "limner.model": model,
                "limner.tick.bucket": report.bucket,
                "limner.tick.rows": report.useful_rows,
                "limner.tick.jobs": len(report.jobs),
                "limner.tick.seconds": report.seconds,
            },
        )
        for trace in traces:
            trace.ticked(tick)
