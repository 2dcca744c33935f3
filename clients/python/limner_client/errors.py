"""What can go wrong with a call: one type for each thing that a caller would do next."""
# ruff: noqa: N818  the names say what happened; the base class says that it is an error

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldViolation:
    """Names a request field and says what is wrong with its value and what the limit is."""

    field: str
    description: str


class LimnerError(Exception):
    """Is the base of every failed call.

    `code` is the gRPC status code's name; `reason` is the server's `ErrorReason` without its prefix, or
    `code` when the error did not come from a Limner server; `metadata` is what the server said besides.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        reason: str = "",
        request_id: str = "",
        task_id: str = "",
        retry_after: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason or code
        self.request_id = request_id
        self.task_id = task_id
        self.retry_after = retry_after
        """Seconds that the server asks to wait before another try; None when it did not say."""
        self.metadata = dict(metadata or {})


class InvalidRequest(LimnerError):
    """Means that the request itself is at fault; `violations` name each field. Never retried."""

    violations: tuple[FieldViolation, ...] = ()


class ReferenceNotFound(LimnerError):
    """Means that no such reference is known there, and its bytes are not at hand to upload them again."""


class ModelNotFound(LimnerError):
    """Means that no model of that name is served there."""


class Overloaded(LimnerError):
    """Means that the server refused for want of room, also after the retries that the deadline allowed."""


class DeadlineInfeasible(Overloaded):
    """Means that the server predicts that the deadline would be missed, and refused at once. Never retried."""


class DeadlineExceeded(LimnerError):
    """Means that the deadline passed."""


class Unavailable(LimnerError):
    """Means that no server, or no engine, could be reached, or that it was lost on the way, also after retries."""


class Cancelled(LimnerError):
    """Means that the call was cancelled, or the client closed."""


class GenerationFailed(LimnerError):
    """Means that this request failed alone and would fail again; change the request."""


class ServerFault(LimnerError):
    """Means a fault of the server's own; its log has the details under `request_id`."""
