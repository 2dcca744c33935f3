"""What a plan asks of the outside world.

A plan is a generator that holds the logic of a call and does no input or output: it yields effects, and is
sent what came of each, or has the error thrown in. One driver carries plans out on threads (`blocking`),
another on asyncio (`aio`), so that both clients share every decision.
"""

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TypeVar

from limner_client.events import Event

T = TypeVar("T")

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Asks for a unary call; answered with the response's bytes."""

    path: str
    request: bytes = field(repr=False)
    metadata: Metadata
    timeout: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Asks to start a server-streaming call, in place of any earlier one; answered with None."""

    call: Call


@dataclass(frozen=True, slots=True)
class Receive:
    """Asks for the next message of the open stream; answered with its bytes, or None at its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sleep:
    """Asks to wait; answered with None."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Emit:
    """Hands an event to the caller; answered with None when the caller asks for the next one."""

    event: Event


Effect = Call | Open | Receive | Sleep | Emit
Plan = Generator[Effect, bytes | None, T]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Is how a call failed, as the transport saw it."""

    code: str
    """The gRPC status code's name."""
    details: str
    status: bytes | None = field(default=None, repr=False)
    """The serialised google.rpc.Status of the trailers, when there is one."""
    request_id: str = ""
