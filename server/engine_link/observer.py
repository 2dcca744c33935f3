"""Who is told what an engine does."""

from __future__ import annotations

from typing import Protocol

from engine.protocol.messages import Finished, Ready, TickReport


class EngineObserver(Protocol):
    """Is told what the engine does; ``server.metrics.ServerMetrics`` is one."""

    def engine_ready(self, ready: Ready) -> None: ...  # noqa: D102

    def engine_lost(self) -> None: ...  # noqa: D102

    def engine_restarted(self) -> None: ...  # noqa: D102

    def jobs_replayed(self, count: int) -> None: ...  # noqa: D102

    def job_poisoned(self) -> None: ...  # noqa: D102

    def job_started(self, queue_seconds: float) -> None: ...  # noqa: D102

    def job_finished(self, finished: Finished) -> None: ...  # noqa: D102

    def tick(self, report: TickReport) -> None: ...  # noqa: D102
