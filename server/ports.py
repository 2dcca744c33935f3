"""Bind the gRPC server's ports."""

from __future__ import annotations

import grpc

from server.config.listen_options import ListenOptions
from server.config.options import LimitOptions


class BindError(Exception):
    """A port cannot be had."""


def grpc_options(limits: LimitOptions, listen: ListenOptions) -> list[tuple[str, int]]:
    """Return the channel arguments."""
    options = [
        ("grpc.max_receive_message_length", limits.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        # On by default: a second server on the same port would then share it in silence.
        ("grpc.so_reuseport", 0),
        # Clients behind load balancers keep idle connections alive; the default counts that as abuse.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ]
    if listen.max_connection_age_seconds:
        options.append(("grpc.max_connection_age_ms", int(listen.max_connection_age_seconds * 1000)))
    return options


def address_of(host: str, port: int) -> str:
    """Return what to dial; a bare IPv6 host gets its brackets."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def bind(
    server: grpc.aio.Server, options: ListenOptions, credentials: grpc.ServerCredentials | None = None
) -> list[str]:
    """Bind the TCP port and the Unix socket; return the addresses to dial. Raises ``BindError``.

    With ``credentials`` the TCP port speaks TLS. The Unix socket never does: its file's permissions guard it.
    """
    wanted = address_of(options.host, options.port)
    addresses = []
    try:
        port = (
            server.add_insecure_port(wanted)
            if credentials is None
            else server.add_secure_port(wanted, credentials)
        )
        addresses.append(address_of(options.host, port))
        if options.unix_socket:
            wanted = f"unix:{options.unix_socket}"
            server.add_insecure_port(wanted)
            addresses.append(wanted)
    except RuntimeError as error:
        raise BindError(f"cannot listen on {wanted}: {error}") from error
    return addresses
