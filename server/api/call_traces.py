"""Calls as spans: https://opentelemetry.io/docs/specs/semconv/rpc/grpc/."""

from __future__ import annotations

from structlog.contextvars import bind_contextvars

from server.api.calls import Call
from server.tracing.trace import Attributes, Tracing, enter_trace

_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""The codes that are a server's error; the others are its caller's."""
_TOLD = frozenset(
    {
        "task_id",
        "joined",
        "model",
        "sampler",
        "steps",
        "guidance_scale",
        "ip_adapter_scale",
        "size",
        "images",
        "seed",
        "format",
        "priority",
        "prompt_characters",
        "references",
        "adapter",
        "reference_layers",
        "cache",
        "mean_batch_rows",
    }
)
"""Of a call's line in the access log. Listed one by one: the log may be asked to hold prompts, a trace never is."""


class CallTraces:
    """Begins and ends the span of each call, and puts its ids into what is logged meanwhile."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    def started(self, call: Call) -> None:
        """Begin the span under the caller's; it is the present trace of the call's task from here on."""
        method = call.method.lstrip("/")
        attributes: dict[str, str | bool | int | float] = {
            "rpc.system.name": "grpc",
            "rpc.method": method,
            "limner.request_id": call.request_id,
            "limner.tenant": call.tenant_as_given[:64],
        }
        if call.user_agent:
            attributes["user_agent.original"] = call.user_agent
        attributes.update(_peer(call.peer))
        call.trace = self._tracing.call(
            method, carrier=call.metadata, began=call.arrived, attributes=attributes
        )
        enter_trace(call.trace)
        if (ids := call.trace.ids) is not None:
            bind_contextvars(trace_id=ids.trace_id, span_id=ids.span_id)

    def ended(self, call: Call) -> None:
        """End it with the call's code, and with what the access log says of how it was made."""
        attributes = {f"limner.{name}": value for name, value in call.fields.items() if name in _TOLD}
        attributes["rpc.response.status_code"] = call.code
        if call.code != "OK":
            attributes["error.type"] = call.code
        if call.reason:
            attributes["limner.reason"] = call.reason
        error = (call.reason or call.code) if call.code in _FAULTS else ""
        call.trace.end(ended=call.arrived + call.seconds, attributes=attributes, error=error)


def _peer(peer: str) -> Attributes:
    """Split ``ipv4:127.0.0.1:4711`` and ``ipv6:%5B::1%5D:4711``; other transports have no port."""
    kind, _, address = peer.partition(":")
    host, _, port = address.rpartition(":")
    if kind not in ("ipv4", "ipv6") or not port.isdecimal():
        return {"network.transport": "unix"} if kind == "unix" else {}
    host = host.replace("%5B", "").replace("%5D", "").strip("[]")
    return {"network.peer.address": host, "network.peer.port": int(port)}
