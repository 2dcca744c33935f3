"""Failed calls: gRPC's status and google.rpc's details to typed errors."""

from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from limner_client import errors
from limner_client.effects import Failure

M = TypeVar("M", bound=Message)

_BY_REASON: dict[str, type[errors.LimnerError]] = {
    "INVALID_FIELD": errors.InvalidRequest,
    "INVALID_IMAGE": errors.InvalidRequest,
    "IDEMPOTENCY_CONFLICT": errors.InvalidRequest,
    "REFERENCE_NOT_FOUND": errors.ReferenceNotFound,
    "MODEL_NOT_FOUND": errors.ModelNotFound,
    "OVERLOADED": errors.Overloaded,
    "DEADLINE_INFEASIBLE": errors.DeadlineInfeasible,
    "DEADLINE_EXCEEDED": errors.DeadlineExceeded,
    "DRAINING": errors.Unavailable,
    "ENGINE_UNAVAILABLE": errors.Unavailable,
    "NUMERICAL_FAILURE": errors.GenerationFailed,
    "POISON": errors.GenerationFailed,
    "INTERNAL": errors.ServerFault,
}
_BY_CODE: dict[str, type[errors.LimnerError]] = {
    "INVALID_ARGUMENT": errors.InvalidRequest,
    "DEADLINE_EXCEEDED": errors.DeadlineExceeded,
    "UNAVAILABLE": errors.Unavailable,
    "CANCELLED": errors.Cancelled,
    "INTERNAL": errors.ServerFault,
    "UNKNOWN": errors.ServerFault,
    "DATA_LOSS": errors.ServerFault,
}
DOMAIN = "limner.v1"


def decode_failure(failure: Failure) -> errors.LimnerError:
    """Turn a failed call into the error to raise. A detail that cannot be read is left out."""
    status = _status(failure.status)
    infos = _details(status, error_details_pb2.ErrorInfo)
    info = next((info for info in infos if info.domain == DOMAIN), None)
    retry = next(iter(_details(status, error_details_pb2.RetryInfo)), None)
    bad = next(iter(_details(status, error_details_pb2.BadRequest)), None)
    reason = info.reason if info else ""
    metadata = dict(info.metadata) if info else {}
    retry_after = None if retry is None else max(0.0, retry.retry_delay.ToTimedelta().total_seconds())
    kind = errors.Unavailable if _is_reset(failure) else _kind(failure.code, reason, retry_after)
    violations = tuple(
        errors.FieldViolation(field=violation.field, description=violation.description)
        for violation in (bad.field_violations if bad else ())
    )
    error = kind(
        failure.details or failure.code,
        code=failure.code,
        reason=reason,
        request_id=metadata.get("request_id") or failure.request_id,
        task_id=metadata.get("task_id", ""),
        retry_after=retry_after,
        metadata=metadata,
    )
    if isinstance(error, errors.InvalidRequest):
        error.violations = violations
    return error


def _is_reset(failure: Failure) -> bool:
    """Tell whether the stream was broken off between here and the server.

    A proxy whose server died after its answer began resets the stream, and gRPC makes INTERNAL of an HTTP/2 reset
    (grpc/doc/PROTOCOL-HTTP2.md, "Errors"). A server's own INTERNAL has details, always.
    """
    return failure.code == "INTERNAL" and not failure.status


def _kind(code: str, reason: str, retry_after: float | None) -> type[errors.LimnerError]:
    """Choose the type: by the reason, then by the code. A newer server's reason falls back to its code.

    RESOURCE_EXHAUSTED alone may also be a message over a size limit, which no wait mends.
    """
    if code == "RESOURCE_EXHAUSTED" and reason not in _BY_REASON:
        return errors.LimnerError if retry_after is None else errors.Overloaded
    return _BY_REASON.get(reason) or _BY_CODE.get(code, errors.LimnerError)


def _status(data: bytes | None) -> status_pb2.Status:
    try:
        return status_pb2.Status.FromString(data or b"")
    except DecodeError:
        return status_pb2.Status()


def _details(status: status_pb2.Status, cls: type[M]) -> Iterable[M]:
    for detail in status.details:
        if detail.Is(cls.DESCRIPTOR):
            message = cls()
            try:
                message.ParseFromString(detail.value)
            except DecodeError:
                continue
            yield message
