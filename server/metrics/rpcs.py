"""The ``grpc_server_*`` series."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from server.metrics.collectors import Collectors
from server.metrics.labels import RpcType

_GO_SPELLING = {"OK": "OK", "CANCELLED": "Canceled"}
_UNKNOWN = (RpcType.UNARY.value, "unknown", "unknown")


Exemplar = Callable[[], dict[str, str] | None]
"""What returns an observation's exemplar."""


def no_exemplar() -> None:
    """Return none."""


class RpcObserver:
    """Counts RPCs by their declared names; what a stranger calls never becomes a label."""

    def __init__(self, collectors: Collectors, exemplar: Exemplar = no_exemplar) -> None:
        self._collectors = collectors
        self._exemplar = exemplar
        self._labels: dict[str, tuple[str, str, str]] = {}

    def declare(self, methods: Mapping[str, RpcType]) -> None:
        """Let the methods' series begin at 0, so that their first call is an increase."""
        for method, rpc_type in methods.items():
            service, _, name = method.lstrip("/").rpartition("/")
            labels = (RpcType(rpc_type).value, service, name)
            self._labels[method] = labels
            self._collectors.rpc_started.labels(*labels)
            self._collectors.rpc_seconds.labels(*labels)

    def started(self, method: str) -> None:
        """Count a start."""
        self._collectors.rpc_started.labels(*self._labels.get(method, _UNKNOWN)).inc()

    def handled(self, method: str, code: str, seconds: float) -> None:
        """Count an end."""
        labels = self._labels.get(method, _UNKNOWN)
        self._collectors.rpc_handled.labels(*labels, grpc_code(code)).inc()
        self._collectors.rpc_seconds.labels(*labels).observe(seconds, self._exemplar())


def grpc_code(name: str) -> str:
    """Return a code as Go, and so go-grpc-prometheus, writes it: ``NOT_FOUND`` becomes ``NotFound``."""
    return _GO_SPELLING.get(name) or "".join(word.capitalize() for word in name.split("_"))
