"""How a client reaches a server: address, transport security, channel options."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import grpc

from limner_client.effects import Call, Failure
from limner_client.errors import LimnerError
from limner_client.routing import Routing, ring_arguments
from limner_client.wire import decode_failure

DEFAULT_TARGET = "127.0.0.1:50051"
_STATUS_KEY = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Sets transport security; certificates are PEM files.

    Without `root_certificates` gRPC's own roots are used. `certificate` and `private_key` together identify
    this client (mutual TLS). `server_name` is the name to expect in the server's certificate, when it is not
    that of the target.
    """

    root_certificates: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key go together")

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files into gRPC credentials. Raises OSError."""
        files = (self.root_certificates, self.private_key, self.certificate)
        return grpc.ssl_channel_credentials(*(path.read_bytes() if path else None for path in files))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSettings:
    """Sets the channel. `options` are gRPC channel arguments that come last and so win."""

    tls: Tls | None = None
    max_message_bytes: int = 64 * 2**20
    """The largest request and response; a response carries every image of a portrait."""
    keepalive_seconds: float = 30.0
    """A ping after so long without traffic finds dead connections; servers object to much shorter times."""
    keepalive_timeout_seconds: float = 10.0
    load_balancing: str = "round_robin"
    """What spreads calls over the addresses that the target's name resolves to; `pick_first` uses one."""
    routing: Routing = "any"
    """`reference` sends the calls of a reference to one replica and its cache, in place of `load_balancing`."""
    resolve_seconds: float = 5.0
    """The least time between two looks at the target's name; a lost connection asks for one."""
    options: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if self.routing not in get_args(Routing):
            raise ValueError(f"routing is one of {', '.join(get_args(Routing))}, not {self.routing!r}")

    def arguments(self) -> list[tuple[str, Any]]:
        """Give the gRPC channel arguments."""
        arguments: list[tuple[str, Any]] = [
            ("grpc.primary_user_agent", "limner-client"),
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.keepalive_time_ms", int(self.keepalive_seconds * 1000)),
            ("grpc.keepalive_timeout_ms", int(self.keepalive_timeout_seconds * 1000)),
            ("grpc.dns_min_time_between_resolutions_ms", int(self.resolve_seconds * 1000)),
        ]
        if self.routing == "reference":
            arguments += ring_arguments()
        else:
            arguments.append(("grpc.lb_policy_name", self.load_balancing))
        if self.tls is not None and self.tls.server_name:
            arguments.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return [*arguments, *self.options]


def failed(error: grpc.RpcError, call: Call) -> LimnerError:
    """Turn a failed gRPC call, of either flavour, into the error to raise."""
    trailers = error.trailing_metadata() or ()
    status = next((value for key, value in trailers if key == _STATUS_KEY), None)
    return decode_failure(
        Failure(
            code=error.code().name,
            details=error.details() or "",
            status=status,
            request_id=request_id_of(call),
        )
    )


def cancelled(call: Call, details: str = "the call was cancelled") -> LimnerError:
    """Give the error of a call that this side gave up."""
    return decode_failure(Failure(code="CANCELLED", details=details, request_id=request_id_of(call)))


def request_id_of(call: Call) -> str:
    """Give the request id that the call carries."""
    return dict(call.metadata)["x-request-id"]
