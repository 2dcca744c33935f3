"""The engines out of their options: processes for each model, each with its metrics and its lines in the log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

from structlog.typing import FilteringBoundLogger

from server.config.engine_options import EngineOptions
from server.config.models import served_models
from server.engine_link.engine import Engine
from server.engine_link.engines import Engines
from server.engine_link.launcher import Launcher
from server.engine_link.link import EngineLink
from server.engine_link.supervisor import SupervisorOptions
from server.metrics.observer import ServerMetrics
from server.metrics.one_engine import OneEngineMetrics


def build_engines(
    options: EngineOptions,
    launchers: Sequence[Launcher],
    *,
    metrics: ServerMetrics,
    log: FilteringBoundLogger,
    on_readiness: Callable[[bool], None],
) -> Engines:
    """Return the engines of ``served_models``, one for each of ``launchers``, in their order; none is started yet."""
    supervision = SupervisorOptions(
        start_timeout=options.start_timeout_seconds,
        stall_timeout=options.stall_timeout_seconds,
        stop_timeout=options.stop_timeout_seconds,
        restart_delay=options.restart_delay_seconds,
        restart_delay_max=options.restart_delay_max_seconds,
    )
    models = served_models(options)
    wanted = [model for model in models for _ in model.engines]
    engines = iter(
        [
            Engine(
                launcher,
                observer=OneEngineMetrics(metrics, str(number)),
                log=log.bind(engine=str(number)),
                options=supervision,
                name=model.name,
            )
            for number, (model, launcher) in enumerate(zip(wanted, launchers, strict=True))
        ]
    )
    return Engines(
        [
            EngineLink(
                list(islice(engines, len(model.engines))),
                log=log.bind(model=model.name or "default"),
                on_readiness=on_readiness,
                patience=options.patience_seconds,
                name=model.name,
            )
            for model in models
        ]
    )
