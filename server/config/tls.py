"""What can be wrong with the options of transport security."""

from __future__ import annotations

from server.config.certificates import CertificateError, read_certificates
from server.config.tls_options import TlsOptions


def tls_problems(options: TlsOptions) -> list[str]:
    """Return what is wrong with the options or in the files that they name."""
    if not options.certificate_file:
        return [
            f"tls.{name}: is given without tls.certificate_file"
            for name in ("key_file", "client_ca_file")
            if getattr(options, name)
        ]
    if not options.key_file:
        return ["tls.key_file: is not given, and tls.certificate_file needs its key"]
    try:
        read_certificates(options)
    except CertificateError as error:
        return list(error.problems)
    return []
