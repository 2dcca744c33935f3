"""The options of the shared tier of the reference cache."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from server.config.units import MIB


class RedisOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The tier of the reference cache that replicas share (docs/references.md). Off without a `url`."""

    url: Annotated[
        str,
        Meta(
            description="`redis://HOST:PORT/DB`, `rediss://` for TLS, or `unix:///PATH`. Empty for none. It is logged "
            "without its password; better name that by `password_file`."
        ),
    ] = ""
    username: Annotated[str, Meta(description="User of Redis' access list. Empty for the default one.")] = ""
    password: Annotated[
        str,
        Meta(description="Password. Flags can be read in the list of processes; the environment less so."),
    ] = ""
    password_file: Annotated[
        str, Meta(description="File that holds the password, read at each new connection. Empty for none.")
    ] = ""
    ca_file: Annotated[
        str, Meta(description="Certificates that vouch for Redis' own, in PEM. Empty for the system's.")
    ] = ""
    seal_key_file: Annotated[
        str,
        Meta(
            description="File with a secret of 16 bytes or more that all replicas share. Entries then carry an HMAC, "
            "so that who can write to Redis still cannot forge one. Empty for a plain checksum."
        ),
    ] = ""
    prefix: Annotated[str, Meta(description="First part of all keys; apart for each fleet on one Redis.")] = (
        "limner"
    )
    ttl_seconds: Annotated[
        float, Meta(ge=60, description="How long a reference stays in Redis after its last use.")
    ] = 86_400.0
    timeout_seconds: Annotated[
        float,
        Meta(
            gt=0,
            le=0.05,
            description="Longest wait of a request for Redis; each waits once at most.",
        ),
    ] = 0.04
    recheck_seconds: Annotated[
        float,
        Meta(
            ge=0,
            description="How long a reference in memory is used before Redis is asked whether another replica deleted "
            "it.",
        ),
    ] = 30.0
    connections: Annotated[int, Meta(ge=2, le=1024, description="Most connections of a server.")] = 16
    max_entry_bytes: Annotated[
        int, Meta(ge=1024, description="Largest embedding that is written to Redis or taken from it.")
    ] = 2 * MIB
    write_queue_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="Memory for embeddings that wait to be written; those that waited longest are dropped.",
        ),
    ] = 16 * MIB
    breaker_failures: Annotated[
        int, Meta(ge=1, description="Failures in a row after which Redis is left alone.")
    ] = 5
    breaker_open_seconds: Annotated[
        float, Meta(gt=0, description="How long, before one request tries it again.")
    ] = 5.0
