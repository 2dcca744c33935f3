"""How long the server may take to end, from its own constants."""

from __future__ import annotations

from server.app import END_SECONDS, STOP_SECONDS
from server.config import Config
from server.references.shared.redis_client import _SOCKET_SECONDS
from server.references.shared.store import CLOSE_SECONDS
from server.tracing.otel import FLUSH_SECONDS


def longest_stop(config: Config) -> float:
    """Add up the seconds from SIGTERM to the end, as `App.drain` and `App.stop` take them at the worst.

    Redis and traces count although they may be off: a component can switch them on.
    """
    return (
        config.drain.notice_seconds
        + config.drain.grace_seconds
        # After the grace, and once more in `stop`.
        + 2 * END_SECONDS
        + STOP_SECONDS
        + CLOSE_SECONDS
        + _SOCKET_SECONDS
        + config.engine.stop_timeout_seconds
        + FLUSH_SECONDS
    )
