"""The server's certificate, its key and the clients' authorities: read, proven to fit, and followed as they change."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass

from server.config.errors import ConfigError
from server.config.files import FileProblem, read_certificates_file, read_file
from server.config.tls_options import TlsOptions


class CertificateError(ConfigError):
    """A file that cannot be used; the problem begins with the option that names it."""

    def __init__(self, option: str, problem: str) -> None:
        super().__init__([f"tls.{option}: {problem}"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """What the files hold, in PEM. ``client_ca`` is None where clients need no certificate."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None


Stamp = tuple[tuple[int, int, int], ...]
"""Inode, size and time of each file; another one means that a file was replaced or written."""


def read_certificates(options: TlsOptions) -> Certificates:
    """Read the files and prove that they can serve. Raises ``CertificateError``."""
    certificate = _read("certificate_file", options.certificate_file, read_certificates_file)
    key = _read("key_file", options.key_file, read_file)
    _check_key(options)
    client_ca = None
    if options.client_ca_file:
        client_ca = _read("client_ca_file", options.client_ca_file, read_certificates_file)
    return Certificates(certificate=certificate, key=key, client_ca=client_ca)


class CertificateWatch:
    """Tells of new certificates. What cannot be used is told once to ``on_problem``, and the old ones stay.

    Raises ``CertificateError`` when the first ones cannot be used. Safe to share between threads.
    """

    def __init__(self, options: TlsOptions, *, on_problem: Callable[[CertificateError], None]) -> None:
        self._options = options
        self._on_problem = on_problem
        self._lock = threading.Lock()
        self._stamp = self._take_stamp()
        self.current = read_certificates(options)

    def poll(self) -> Certificates | None:
        """Return the certificates when the files have changed and can be used, else None."""
        with self._lock:
            return self._poll()

    def _poll(self) -> Certificates | None:
        stamp = self._take_stamp()
        if stamp == self._stamp:
            return None
        try:
            found = read_certificates(self._options)
        except CertificateError as error:
            # A file that was replaced while they were read may be at fault: the next handshake looks again.
            if self._take_stamp() == stamp:
                self._stamp = stamp
                self._on_problem(error)
            return None
        if self._take_stamp() != stamp:
            return None
        self._stamp = stamp
        changed, self.current = found != self.current, found
        return found if changed else None

    def _take_stamp(self) -> Stamp:
        options = self._options
        paths = (options.certificate_file, options.key_file, options.client_ca_file)
        return tuple(_stamp(path) for path in paths if path)


def _stamp(path: str) -> tuple[int, int, int]:
    try:
        # Through symbolic links: Kubernetes replaces the files of a Secret by turning one.
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return (0, 0, 0)
    return (status.st_ino, status.st_size, status.st_mtime_ns)


def _read(option: str, path: str, read: Callable[[str], bytes]) -> bytes:
    try:
        return read(path)
    except FileProblem as problem:
        raise CertificateError(option, str(problem)) from problem


def _check_key(options: TlsOptions) -> None:
    def refuse() -> str:
        raise CertificateError("key_file", f"{options.key_file} is encrypted, and there is nobody to ask")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(options.certificate_file, options.key_file, password=refuse)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            problem = f"{options.key_file} does not belong to the certificate in {options.certificate_file}"
        else:
            problem = f"{options.key_file} holds no private key in PEM that fits the certificate"
        raise CertificateError("key_file", problem) from error
    except OSError as error:
        raise CertificateError("key_file", f"{options.key_file}: {error.strerror}") from error
