"""Whether anything is traced."""

from __future__ import annotations

from server.config.errors import ConfigError
from server.config.optional import TracingOptions
from server.tracing.trace import NO_TRACE, Tracing


def choose_tracing(options: TracingOptions, *, version: str) -> Tracing:
    """Return the tracing that is asked for. Raises ``ConfigError`` where OpenTelemetry is not installed."""
    if not options.endpoint:
        return NO_TRACE
    try:
        from server.tracing.otel import OtelTracing
    except ImportError as error:
        raise ConfigError(
            [f"tracing.endpoint: needs OpenTelemetry (pip install 'limner[tracing]'): {error}"]
        ) from error
    return OtelTracing(options.endpoint, version=version)
