"""gRPC's credentials for certificates that are renewed while it serves."""

from __future__ import annotations

import grpc
from structlog.typing import FilteringBoundLogger

from server.config.certificates import CertificateError, Certificates, CertificateWatch
from server.config.tls_options import TlsOptions


def server_credentials(options: TlsOptions, log: FilteringBoundLogger) -> grpc.ServerCredentials | None:
    """Return credentials that look at the files at each handshake; None where TLS is off.

    TLS 1.2 is the least that gRPC speaks. Raises ``CertificateError``.
    """
    if not options.certificate_file:
        return None

    def told(error: CertificateError) -> None:
        log.error("certificate_unusable", error=str(error), hint="the one before stays in use")

    watch = CertificateWatch(options, on_problem=told)

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        """Return what handshakes use from now on, None for what they used. gRPC calls it from threads of its own."""
        found = watch.poll()
        if found is None:
            return None
        log.info("certificate_renewed", file=options.certificate_file)
        return _configuration(found)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(watch.current), renewed, require_client_authentication=bool(options.client_ca_file)
    )


def _configuration(certificates: Certificates) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(certificates.key, certificates.certificate)], root_certificates=certificates.client_ca
    )
