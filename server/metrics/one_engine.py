"""The metrics of one of several engines."""

from __future__ import annotations

from engine.protocol.messages import Finished, Ready, TickReport
from server.metrics.observer import ServerMetrics


class OneEngineMetrics:
    """Tells the server's metrics what an engine does, under its short name ("0", "1", ...)."""

    def __init__(self, metrics: ServerMetrics, engine: str) -> None:
        self._metrics = metrics
        self._engine = engine

    def engine_ready(self, ready: Ready) -> None:
        """As of ``ServerMetrics``, and so are the others."""
        self._metrics.engine_ready(ready, engine=self._engine)

    def engine_lost(self) -> None:  # noqa: D102
        self._metrics.engine_lost(engine=self._engine)

    def engine_restarted(self) -> None:  # noqa: D102
        self._metrics.engine_restarted(engine=self._engine)

    def jobs_replayed(self, count: int) -> None:  # noqa: D102
        self._metrics.jobs_replayed(count, engine=self._engine)

    def job_poisoned(self) -> None:  # noqa: D102
        self._metrics.job_poisoned()

    def job_started(self, queue_seconds: float) -> None:  # noqa: D102
        self._metrics.job_started(queue_seconds)

    def job_finished(self, finished: Finished) -> None:  # noqa: D102
        self._metrics.job_finished(finished)

    def tick(self, report: TickReport) -> None:  # noqa: D102
        self._metrics.tick(report, engine=self._engine)
