"""The options of transport security."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class TlsOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Transport security of the gRPC port (docs/tls.md). Off without a `certificate_file`.

    The files are looked at again at each handshake, so that renewed ones hold without a restart.
    """

    certificate_file: Annotated[
        str,
        Meta(
            description="The server's certificate and the chain up to its root, in PEM. Empty serves plain text."
        ),
    ] = ""
    key_file: Annotated[str, Meta(description="The certificate's private key, in PEM, not encrypted.")] = ""
    client_ca_file: Annotated[
        str,
        Meta(
            description="Certificates of the authorities whose clients may call, in PEM; a client without such a "
            "certificate is refused (mutual TLS). Empty lets everybody call."
        ),
    ] = ""
