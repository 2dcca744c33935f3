"""Certificates in files, as the server and its clients want them, and their renewal as Kubernetes does it."""

from __future__ import annotations

from pathlib import Path

import grpc
import trustme

from server.config.tls_options import TlsOptions

HOST = "127.0.0.1"


class Secret:
    """A folder of files behind a link, as kubelet mounts a Secret; ``write`` replaces all files at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._version = 0

    def write(self, **files: bytes) -> None:
        """Write a version with these files, dots in their names being underscores, and turn the link to it."""
        self._version += 1
        version = self.folder / f"..{self._version}"
        version.mkdir()
        for name, content in files.items():
            (version / name.replace("_", ".")).write_bytes(content)
        draft = self.folder / "..draft"
        draft.symlink_to(version.name)
        draft.replace(self.folder / "..data")
        for file in version.iterdir():
            link = self.folder / file.name
            if not link.is_symlink():
                link.symlink_to(f"..data/{file.name}")

    def issue(self, authority: trustme.CA, *, client_ca: trustme.CA | None = None) -> None:
        """Write a new certificate of the authority for this machine."""
        issued = authority.issue_cert(HOST, "limner.test")
        files = {"tls_crt": chain(issued), "tls_key": issued.private_key_pem.bytes()}
        if client_ca is not None:
            files["ca_crt"] = roots(client_ca)
        self.write(**files)

    def options(self, *, mutual: bool = False) -> TlsOptions:
        """Return the options that name the files."""
        return TlsOptions(
            certificate_file=str(self.folder / "tls.crt"),
            key_file=str(self.folder / "tls.key"),
            client_ca_file=str(self.folder / "ca.crt") if mutual else "",
        )


def chain(issued: trustme.LeafCert) -> bytes:
    return b"".join(blob.bytes() for blob in issued.cert_chain_pems)


def roots(authority: trustme.CA) -> bytes:
    return authority.cert_pem.bytes()


def trusting(authority: trustme.CA, identity: trustme.LeafCert | None = None) -> grpc.ChannelCredentials:
    """Return the credentials of a client that trusts the authority."""
    if identity is None:
        return grpc.ssl_channel_credentials(roots(authority))
    return grpc.ssl_channel_credentials(roots(authority), identity.private_key_pem.bytes(), chain(identity))
