"""The series that engines' messages move."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.protocol.messages import Ready, TickReport
from server.metrics.collectors import Collectors
from server.metrics.totals import RunningTotal


@dataclass(slots=True, kw_only=True)
class _Totals:
    """What an engine process has reported so far."""

    busy: RunningTotal = field(default_factory=RunningTotal)
    cpu: RunningTotal = field(default_factory=RunningTotal)
    encodes: RunningTotal = field(default_factory=RunningTotal)


class EngineObserver:
    """Observes engines, each under a short name ("0", "1", ...)."""

    def __init__(self, collectors: Collectors) -> None:
        self._collectors = collectors
        self._totals: dict[str, _Totals] = {}
        self._models: dict[str, tuple[str, ...]] = {}
        """The labels of each engine's ``limner_model_info``, to take it down."""

    def expect(self, engine: str) -> None:
        """Let an engine's series begin at 0, before its process is there."""
        c = self._collectors
        self.lost(engine)
        for metric in (c.engine_busy, c.engine_cpu, c.engine_restarts, c.jobs_replayed, c.image_encodes):
            metric.labels(engine)
        for kind in ("useful", "padded"):
            c.rows.labels(engine, kind)
        c.occupancy.labels(engine)

    def ready(self, ready: Ready, engine: str) -> None:
        """Note a new engine process that takes jobs; each of its buckets' series begins at 0."""
        c, model = self._collectors, ready.model
        self._restart_totals(engine)
        c.engine_ready.labels(engine).set(1)
        c.engine_load.labels(engine).set(ready.load_seconds)
        c.engine_warmup.labels(engine).set(ready.warmup_seconds)
        self._forget_model(engine)
        labels = (engine, model.name, model.family, model.weights_hash, ready.backend, ready.device)
        c.model.labels(*labels).set(1)
        self._models[engine] = labels
        for bucket in ready.buckets:
            c.ticks.labels(engine, str(bucket))
            c.tick_seconds.labels(engine, str(bucket))

    def lost(self, engine: str) -> None:
        """Note that the process is gone: it is not ready, holds nothing and uses no memory."""
        c = self._collectors
        self._restart_totals(engine)
        for gauge in (c.engine_ready, c.queue_depth, c.queue_oldest, c.images_running, c.engine_resident):
            gauge.labels(engine).set(0)
        self._forget_model(engine)

    def tick(self, report: TickReport, engine: str) -> None:
        """Observe a tick, and the engine's state."""
        c = self._collectors
        if report.bucket > 0:
            bucket = str(report.bucket)
            c.ticks.labels(engine, bucket).inc()
            c.tick_seconds.labels(engine, bucket).observe(report.seconds)
            c.rows.labels(engine, "useful").inc(report.useful_rows)
            c.rows.labels(engine, "padded").inc(max(0, report.bucket - report.useful_rows))
            c.occupancy.labels(engine).observe(report.useful_rows / report.bucket)
        c.queue_depth.labels(engine).set(report.waiting)
        c.images_running.labels(engine).set(report.running)
        c.queue_oldest.labels(engine).set(report.oldest_wait_seconds)
        c.engine_resident.labels(engine).set(report.resident_bytes)
        totals = self._totals.setdefault(engine, _Totals())
        c.engine_busy.labels(engine).inc(totals.busy.advance(report.busy_seconds))
        c.engine_cpu.labels(engine).inc(totals.cpu.advance(report.cpu_seconds))
        c.image_encodes.labels(engine).inc(totals.encodes.advance(report.encoded_references))

    def _restart_totals(self, engine: str) -> None:
        totals = self._totals.setdefault(engine, _Totals())
        totals.busy.restart()
        totals.cpu.restart()
        totals.encodes.restart()

    def _forget_model(self, engine: str) -> None:
        if labels := self._models.pop(engine, None):
            self._collectors.model.remove(*labels)
