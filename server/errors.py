"""What a call can fail with: one hierarchy, mapped to gRPC once (:mod:`server.api.status`; ``docs/errors.md``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import ClassVar

TOLD_IN_TEXT = 3
"""So many violations are told in a status' text."""


class Code(StrEnum):
    """The gRPC status codes that this service sends, by their names in ``grpc.StatusCode``."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    UNAVAILABLE = "UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    INTERNAL = "INTERNAL"


class Reason(StrEnum):
    """The ``reason`` of ``google.rpc.ErrorInfo``: the proto's ``ErrorReason`` without its prefix."""

    INVALID_FIELD = "INVALID_FIELD"
    INVALID_IMAGE = "INVALID_IMAGE"
    REFERENCE_NOT_FOUND = "REFERENCE_NOT_FOUND"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    OVERLOADED = "OVERLOADED"
    DEADLINE_INFEASIBLE = "DEADLINE_INFEASIBLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    DRAINING = "DRAINING"
    ENGINE_UNAVAILABLE = "ENGINE_UNAVAILABLE"
    NUMERICAL_FAILURE = "NUMERICAL_FAILURE"
    POISON = "POISON"
    INTERNAL = "INTERNAL"
    IDEMPOTENCY_CONFLICT = "IDEMPOTENCY_CONFLICT"


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldViolation:
    """What is wrong with one field: its path, such as ``portrait.steps``, the value's problem and the limit."""

    field: str
    problem: str
    limit: str

    @property
    def description(self) -> str:
        """Problem and limit in one sentence."""
        return f"{self.problem}; {self.limit}"


def _told(violations: Sequence[FieldViolation], more: int = 0) -> str:
    # Status text and details travel in one header of 8 KB: the details have more of the violations.
    texts = [f"{violation.field}: {violation.description}" for violation in violations[:TOLD_IN_TEXT]]
    if untold := len(violations) - len(texts) + more:
        texts.append(f"and {untold} more")
    return "; ".join(texts)


class LimnerError(Exception):
    """Base of everything that a caller is told. Its text goes to the caller, so it never quotes a prompt.

    Attributes:
        metadata: for ``ErrorInfo``; machine-readable.
        violations: for ``BadRequest``; empty unless a field is at fault.
        retry_after: seconds for ``RetryInfo``, or None.
        quota: what ran out, for ``QuotaFailure``; empty unless something did.
    """

    code: ClassVar[Code] = Code.INTERNAL
    reason: ClassVar[Reason] = Reason.INTERNAL

    def __init__(
        self,
        message: str,
        *,
        metadata: Mapping[str, str] = MappingProxyType({}),
        violations: Sequence[FieldViolation] = (),
        retry_after: float | None = None,
        quota: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = dict(metadata)
        self.violations = tuple(violations)
        self.retry_after = retry_after
        self.quota = quota


class InvalidFieldsError(LimnerError):
    """Fields are missing, malformed or out of their limits. Carries a violation for each of them, but for ``more``."""

    code = Code.INVALID_ARGUMENT
    reason = Reason.INVALID_FIELD

    def __init__(self, violations: Sequence[FieldViolation], *, more: int = 0) -> None:
        metadata = {"field": violations[0].field}
        if more:
            metadata["more_violations"] = str(more)
        super().__init__(_told(violations, more), metadata=metadata, violations=violations)


class InvalidImageError(LimnerError):
    """A picture that cannot be used, by its sender's fault."""

    code = Code.INVALID_ARGUMENT
    reason = Reason.INVALID_IMAGE

    def __init__(self, *violations: FieldViolation) -> None:
        super().__init__(_told(violations), metadata={"field": violations[0].field}, violations=violations)


class ReferenceUnknownError(LimnerError):
    """References with these digests are not known to this tenant here; ``unknown`` maps field to digest."""

    code = Code.NOT_FOUND
    reason = Reason.REFERENCE_NOT_FOUND

    def __init__(self, unknown: Mapping[str, str]) -> None:
        violations = [
            FieldViolation(
                field=field, problem="is not known here", limit="upload the reference again, then it is"
            )
            for field in unknown
        ]
        digests = list(dict.fromkeys(unknown.values()))
        metadata = {"digest": digests[0], "field": violations[0].field}
        if len(digests) > 1:
            metadata["digests"] = " ".join(digests)
        super().__init__(_told(violations), metadata=metadata, violations=violations)
        self.unknown = dict(unknown)


class ModelUnknownError(LimnerError):
    """No model of this name is served here."""

    code = Code.NOT_FOUND
    reason = Reason.MODEL_NOT_FOUND

    def __init__(self, model: str, served: Sequence[str], *, field: str = "portrait.model") -> None:
        violation = FieldViolation(
            field=field, problem="names no model that is served here", limit=f"one of {', '.join(served)}"
        )
        super().__init__(
            f"{field}: {violation.description}",
            metadata={"model": model[:64], "field": field},
            violations=[violation],
        )


class IdempotencyConflictError(LimnerError):
    """The idempotency key was used with another portrait."""

    code = Code.INVALID_ARGUMENT
    reason = Reason.IDEMPOTENCY_CONFLICT

    def __init__(self) -> None:
        violation = FieldViolation(
            field="idempotency_key",
            problem="was used with another portrait",
            limit="a key goes with one portrait only",
        )
        super().__init__(
            f"{violation.field}: {violation.description}",
            metadata={"field": violation.field},
            violations=[violation],
        )


class OverloadedError(LimnerError):
    """As much work as allowed is in flight. ``what`` names it, such as ``requests in flight``."""

    code = Code.RESOURCE_EXHAUSTED
    reason = Reason.OVERLOADED

    def __init__(self, what: str, *, limit: int | None, retry_after: float) -> None:
        said = what if limit is None else f"{limit} {what}"
        super().__init__(
            f"the server is full: {said}; try again in {retry_after:.2f} s",
            metadata={} if limit is None else {"limit": str(limit)},
            retry_after=retry_after,
            quota=what,
        )


class DeadlineInfeasibleError(LimnerError):
    """The request is predicted to miss its deadline, so it was refused at once."""

    code = Code.RESOURCE_EXHAUSTED
    reason = Reason.DEADLINE_INFEASIBLE

    def __init__(
        self, message: str, *, retry_after: float | None, predicted_seconds: float | None = None
    ) -> None:
        super().__init__(
            message,
            metadata={} if predicted_seconds is None else {"predicted_seconds": f"{predicted_seconds:.3f}"},
            retry_after=retry_after,
            quota="engine time before the deadline",
        )


class DeadlinePassedError(LimnerError):
    """The deadline passed while the request was in flight."""

    code = Code.DEADLINE_EXCEEDED
    reason = Reason.DEADLINE_EXCEEDED

    def __init__(self, phase: str = "") -> None:
        super().__init__(f"the deadline passed{f' while {phase}' if phase else ''}")


class DrainingError(LimnerError):
    """The server is shutting down."""

    code = Code.UNAVAILABLE
    reason = Reason.DRAINING

    def __init__(self) -> None:
        super().__init__("the server is shutting down; retry elsewhere", retry_after=1.0)


class EngineUnavailableError(LimnerError):
    """No engine is ready."""

    code = Code.UNAVAILABLE
    reason = Reason.ENGINE_UNAVAILABLE

    def __init__(self, what: str, *, retry_after: float = 1.0) -> None:
        super().__init__(what, retry_after=retry_after)


class NumericalFailureError(LimnerError):
    """This request's arithmetic left the range of numbers; no other request was touched."""

    code = Code.INTERNAL
    reason = Reason.NUMERICAL_FAILURE

    def __init__(self, task_id: str) -> None:
        super().__init__(
            "this request's arithmetic left the range of numbers; the same request will fail again",
            metadata={"task_id": task_id},
        )


class PoisonError(LimnerError):
    """An engine process died twice with this work in flight, so it is not tried again."""

    code = Code.INTERNAL
    reason = Reason.POISON

    def __init__(self, task_id: str) -> None:
        super().__init__(
            "an engine process died twice with this request in flight; it is not tried again",
            metadata={"task_id": task_id},
        )


class InternalError(LimnerError):
    """A fault of the server's own; says nothing but where to look."""

    code = Code.INTERNAL
    reason = Reason.INTERNAL

    def __init__(self) -> None:
        super().__init__("a fault of the server's own; its log has it under the request id")
