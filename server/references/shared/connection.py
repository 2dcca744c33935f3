"""Redis as the shared tier needs it: a few commands go out together, their replies or one fault come back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

Command = tuple[str | bytes | int, ...]
"""A command of Redis with its arguments, such as ``("HGET", key, field)``."""


class FaultKind(StrEnum):
    """What kept Redis from doing what it was asked to."""

    TIMEOUT = "timeout"
    CONNECTION = "connection"
    REFUSED = "refused"
    """It answered with an error: out of memory, no permission, still loading, a replica that takes no writes."""
    NONSENSE = "nonsense"
    """What came back is no reply to what was asked."""


class RedisFault(Exception):  # noqa: N818 - what is at fault is not this program
    """No use can be made of Redis now."""

    def __init__(self, kind: FaultKind, problem: str) -> None:
        super().__init__(problem)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """One command's error; the other commands may have succeeded."""

    text: str

    @property
    def is_wrong_type(self) -> bool:
        """Whether something else than this program's stands under the key."""
        return self.text.startswith("WRONGTYPE")


BULK = (bytes, type(None))
"""What ``GET`` and ``HGET`` reply."""
NUMBER = (int,)
STATUS = (bytes, str, bool)
"""Of ``SET``, which redis-py makes true."""


class RedisConnection(Protocol):
    """Sends commands. What it raises and returns is all that its callers need to expect."""

    async def run(self, *commands: Command, atomic: bool = False) -> Sequence[object]:
        """Return a reply a command (``bytes``, ``int``, ``list``, None or ``ErrorReply``), in their order.

        ``atomic`` commands are done all or none. Raises ``RedisFault``. Has no time limit of its own below a second;
        cancelling it gives its connection up.
        """
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...
