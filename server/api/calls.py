"""The RPC that is being handled: who asks, since when, until when, and what there is to say of it in the log."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import grpc

from server.deadlines import is_late
from server.errors import FieldViolation, InvalidFieldsError
from server.tracing.trace import NO_TRACE, Trace

REQUEST_ID_KEY = "x-request-id"
TENANT_KEY = "x-limner-tenant"
DEFAULT_TENANT = "default"
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Call:
    """One RPC. ``arrived`` and ``deadline`` are seconds of ``clock``; ``code`` and ``reason`` are known at its end."""

    def __init__(
        self, method: str, context: grpc.aio.ServicerContext, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.method = method
        self.arrived = clock()
        self._clock = clock
        metadata = {
            key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)
        }
        asked = metadata.get(REQUEST_ID_KEY, "")
        # A caller's id that could spoil a log line is replaced rather than refused: it is not what the call is about.
        self.request_id = asked if _REQUEST_ID.fullmatch(asked) else uuid.uuid4().hex
        self.metadata = metadata
        self.user_agent = metadata.get("user-agent", "")
        self.peer: str = context.peer()
        self.tenant_as_given = metadata.get(TENANT_KEY, DEFAULT_TENANT)
        remaining = context.time_remaining()
        self.deadline = None if remaining is None else self.arrived + remaining
        self.code = "UNKNOWN"
        self.reason = ""
        self.fields: dict[str, Any] = {}
        self.trace: Trace = NO_TRACE

    @property
    def seconds(self) -> float:
        """Seconds since it arrived."""
        return self._clock() - self.arrived

    @property
    def is_late(self) -> bool:
        """Whether its deadline has passed, here or on the caller's side, whose clock may ring first."""
        return is_late(arrived=self.arrived, deadline=self.deadline, now=self._clock())

    @property
    def tenant(self) -> str:
        """The caller's tenant. Raises ``InvalidFieldsError``."""
        if not _TENANT.fullmatch(self.tenant_as_given):
            raise InvalidFieldsError(
                [
                    FieldViolation(
                        field=f"metadata.{TENANT_KEY}",
                        problem="is not a tenant's name",
                        limit="the limit is 1 to 64 letters, digits, dots, dashes and underscores, "
                        "the first of them a letter or a digit",
                    )
                ]
            )
        return self.tenant_as_given

    def end(self, code: str, reason: str = "") -> None:
        """Note how it ended."""
        self.code, self.reason = code, reason

    def note(self, **fields: Any) -> None:
        """Add fields to its line in the access log."""
        self.fields.update(fields)


_current: ContextVar[Call] = ContextVar("limner_call")


def current_call() -> Call:
    """Return the call that this task handles."""
    return _current.get()


def enter_call(call: Call) -> None:
    """Make it the call of this task, which gRPC makes for it and ends with it."""
    _current.set(call)
