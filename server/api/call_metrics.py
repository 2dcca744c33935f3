"""Calls as metrics: every RPC, and the generations among them by outcome."""

from __future__ import annotations

from typing import Protocol

from server.api.calls import Call
from server.errors import Code
from server.metrics.labels import RejectReason, RequestOutcome

GENERATIONS = frozenset(
    {
        "/limner.v1.PortraitService/Generate",
        "/limner.v1.PortraitService/GenerateStream",
        "/inference.GRPCInferenceService/ModelInfer",
    }
)
_OUTCOMES = {
    "OK": RequestOutcome.OK,
    "CANCELLED": RequestOutcome.CANCELLED,
    Code.INVALID_ARGUMENT.value: RequestOutcome.INVALID,
    Code.NOT_FOUND.value: RequestOutcome.NOT_FOUND,
    Code.RESOURCE_EXHAUSTED.value: RequestOutcome.REJECTED,
    Code.UNAVAILABLE.value: RequestOutcome.UNAVAILABLE,
    Code.DEADLINE_EXCEEDED.value: RequestOutcome.DEADLINE,
}
_REFUSALS = frozenset(
    {RequestOutcome.INVALID, RequestOutcome.NOT_FOUND, RequestOutcome.REJECTED, RequestOutcome.UNAVAILABLE}
)


class RequestMetrics(Protocol):
    """The part of ``server.metrics.ServerMetrics`` that calls need."""

    def rpc_started(self, method: str) -> None: ...  # noqa: D102

    def rpc_handled(self, method: str, code: str, seconds: float) -> None: ...  # noqa: D102

    def request_started(self) -> None: ...  # noqa: D102

    def request_finished(self, outcome: RequestOutcome, seconds: float) -> None: ...  # noqa: D102

    def rejected(self, reason: RejectReason | str) -> None: ...  # noqa: D102


class CallMetrics:
    """Tells the metrics of each call's start and end."""

    def __init__(self, metrics: RequestMetrics) -> None:
        self._metrics = metrics

    def started(self, call: Call) -> None:
        """Count it in."""
        self._metrics.rpc_started(call.method)
        if call.method in GENERATIONS:
            self._metrics.request_started()

    def ended(self, call: Call) -> None:
        """Count it out, by code, by outcome and, when it was refused, by reason."""
        seconds = call.seconds
        self._metrics.rpc_handled(call.method, call.code, seconds)
        outcome = _OUTCOMES.get(call.code, RequestOutcome.FAILED)
        if call.method in GENERATIONS:
            self._metrics.request_finished(outcome, seconds)
        if outcome in _REFUSALS:
            self._metrics.rejected(call.reason.lower())
