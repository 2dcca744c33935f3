"""One logical call: its deadline, its identity and its retries, however many tries it takes."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from limner_client.choices import CacheOutcome
from limner_client.context import trace_context
from limner_client.effects import Call, Metadata, Plan, Sleep
from limner_client.errors import DeadlineExceeded, LimnerError, Overloaded
from limner_client.memory import ReferenceMemory
from limner_client.retry import RetryPolicy
from limner_client.routing import HASHED


def _new_id() -> str:
    return secrets.token_hex(16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Holds what every call of one client shares. Tests pass in the clock, the ids and the chance."""

    tenant: str = ""
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    memory: ReferenceMemory = field(default_factory=ReferenceMemory)
    clock: Callable[[], float] = time.monotonic
    new_id: Callable[[], str] = _new_id
    random: Random = field(default_factory=Random)

    def __post_init__(self) -> None:
        if not (self.tenant.isascii() and (self.tenant.isprintable() or not self.tenant)):
            raise ValueError("a tenant is printable ASCII, as gRPC metadata is")


class Exchange:
    """Makes the calls of one logical call, all within one deadline and under one request id."""

    def __init__(
        self, session: Session, *, timeout: float, digest: str = "", retry: RetryPolicy | None = None
    ) -> None:
        if not timeout > 0:
            raise ValueError(f"a timeout is a number of seconds above 0, not {timeout}")
        self.session = session
        self.request_id = session.new_id()
        self.retry = retry or session.retry
        self.upload_outcome: CacheOutcome | None = None
        """What became of the upload that this call made, if it made one."""
        self._ends = session.clock() + timeout
        self._digest = digest
        self._refusals = 0
        """How many replicas had no room."""
        self._trace = trace_context()

    def _metadata(self) -> Metadata:
        """Name the call, the tenant, the reference, which is hashed to find its replica, and the trace.

        A reference that is asked for more than its replica can make gets further replicas, the same ones for all
        callers, so that it is soon known there too: after each refusal for want of room another value is hashed, first
        `digest/1`, then `digest/2`.
        """
        hashed = f"{self._digest}/{self._refusals}" if self._digest and self._refusals else self._digest
        pairs = (
            ("x-request-id", self.request_id),
            ("x-limner-tenant", self.session.tenant),
            (HASHED, hashed),
        )
        return (*(pair for pair in pairs if pair[1]), *self._trace)

    def call(self, path: str, request: bytes) -> Call:
        """Describe one try, with the time that is left. Raises DeadlineExceeded when none is."""
        remaining = self._ends - self.session.clock()
        if remaining <= 0:
            raise DeadlineExceeded(
                "the deadline passed before the call could be made",
                code="DEADLINE_EXCEEDED",
                request_id=self.request_id,
            )
        return Call(path=path, request=request, metadata=self._metadata(), timeout=remaining)

    def ask(self, path: str, request: bytes) -> Plan[bytes]:
        """Make a unary call and retry it as the policy says. Raises the last LimnerError."""
        attempt = 1
        while True:
            try:
                reply = yield self.call(path, request)
            except LimnerError as error:
                yield from self.wait_or_raise(error, attempt)
                attempt += 1
            else:
                return reply or b""

    def wait_or_raise(self, error: LimnerError, attempt: int) -> Plan[None]:
        """Wait as long as the policy says after the failed try number `attempt`, or raise its error."""
        delay = self.retry.delay(
            error,
            attempt=attempt,
            remaining=self._ends - self.session.clock(),
            random=self.session.random,
        )
        if delay is None:
            raise error
        self._refusals += isinstance(error, Overloaded)
        yield Sleep(seconds=delay)
