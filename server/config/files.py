"""Files that options name: read, or what is wrong with them in words that do not repeat what they hold."""

from __future__ import annotations

import ssl
from pathlib import Path


class FileProblem(Exception):  # noqa: N818 - what it says
    """A file that cannot be used; the text names it and says why."""


def read_file(path: str) -> bytes:
    """Return what is in a file. Raises ``FileProblem`` of one that cannot be read or has nothing in it but space."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise FileProblem(f"{path}: {error.strerror}") from error
    if not content.strip():
        raise FileProblem(f"{path} is empty")
    return content


def read_certificates_file(path: str) -> bytes:
    """Return a file of certificates in PEM. Raises ``FileProblem`` where it holds none."""
    content = read_file(path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=content.decode("ascii"))
    except (ssl.SSLError, UnicodeDecodeError) as error:
        raise FileProblem(f"{path} holds no certificate in PEM") from error
    return content
