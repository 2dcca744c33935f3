"""The options of the ports."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class ListenOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the server listens."""

    host: Annotated[
        str,
        Meta(
            description="Interface of the gRPC port. The service authenticates nobody but by `tls.client_ca_file`, "
            "so the default is reachable from this machine only; containers set `0.0.0.0` or `[::]`."
        ),
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="gRPC port; 0 takes a free one.")] = 50051
    unix_socket: Annotated[
        str,
        Meta(description="Path of a Unix socket to listen on as well, always in plain text. Empty for none."),
    ] = ""
    health_port: Annotated[
        int,
        Meta(
            ge=-1,
            le=65535,
            description="Plain gRPC port of `listen.host` that answers health checks and nothing else, for probes that "
            "speak no TLS; 0 takes a free one, -1 serves none.",
        ),
    ] = -1
    max_connection_age_seconds: Annotated[
        float,
        Meta(
            ge=0,
            description="How old a connection gets, give or take a tenth, before its client is asked to make a new "
            "one; calls in flight end on the old one. Clients look at the server's name again then, and so find "
            "replicas that were added. 0 sets no bound.",
        ),
    ] = 300.0
    metrics_host: Annotated[str, Meta(description="Interface of the metrics port.")] = "127.0.0.1"
    metrics_port: Annotated[
        int, Meta(ge=-1, le=65535, description="HTTP port of `/metrics`; 0 takes a free one, -1 serves none.")
    ] = 9464
    ready_file: Annotated[
        str,
        Meta(
            description="File to keep up to date with `pid`, `grpc`, `health`, `metrics` (addresses, or empty) "
            "and `ready`, as JSON; written when the ports are bound and whenever readiness changes. Empty for none."
        ),
    ] = ""
