"""The log: JSON a line when standard error is no terminal, coloured key-value when it is."""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from server.config.options import LogOptions

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure_logging(options: LogOptions, stream: TextIO = sys.stderr) -> FilteringBoundLogger:
    """Set up structlog for this process, send the standard library's log through it, and return the server's logger."""
    is_console = options.format == "console" or (options.format == "auto" and stream.isatty())
    processors: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    processors += (
        [structlog.dev.ConsoleRenderer(colors=stream.isatty())]
        if is_console
        else [
            structlog.processors.dict_tracebacks,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(serializer=_to_json),
        ]
    )
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[options.level]),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_Forward()], level=max(LEVELS[options.level], logging.WARNING), force=True)
    logger: FilteringBoundLogger = structlog.get_logger().bind(process="server")
    return logger


class _Forward(logging.Handler):
    """Passes records of the standard library on."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger().bind(logger=record.name)
        log.log(record.levelno, record.getMessage(), exc_info=record.exc_info)


def _to_json(event: EventDict, default: Any = None, **_: Any) -> str:
    return msgspec.json.encode(event, enc_hook=default or repr).decode()
