"""What a peer may do wrong, with the end of its log."""

from __future__ import annotations

from pathlib import Path

TAIL_CHARACTERS = 2000


def tail(log: Path) -> str:
    """Return the end of a log, empty where there is none."""
    return log.read_text(errors="replace")[-TAIL_CHARACTERS:] if log.is_file() else ""


class PeerError(RuntimeError):
    """A side that cannot be measured; ``reason`` fits into a cell of the table."""

    def __init__(self, name: str, reason: str, log: str = "") -> None:
        super().__init__(f"{name}: {reason}" + (f"; its log ends with\n{log}" if log else ""))
        self.name = name
        self.reason = reason
        self.log = log


class PeerNotInstalledError(PeerError):
    """pip could not make the peer's environment."""

    def __init__(self, name: str, status: int, log: str) -> None:
        super().__init__(name, f"cannot be installed: pip ended with status {status}", log)


class PeerNotStartedError(PeerError):
    """The peer's process ended, or did not answer its first request in time."""


class PeerRefusedError(PeerError):
    """The peer answered a request with something else than a picture."""


class PeerPictureError(PeerError):
    """The peer's picture is not the one that diffusers' own pipeline makes."""
