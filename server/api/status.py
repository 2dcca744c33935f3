"""The one place where errors become gRPC statuses with ``google.rpc`` details (``docs/errors.md``)."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from server.errors import LimnerError

DOMAIN = "limner.v1"
DETAILS_KEY = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class RichStatus:
    """What ends a call: code, text and the packed ``google.rpc.Status``."""

    code: grpc.StatusCode
    text: str
    details: bytes


def status_of(error: LimnerError) -> RichStatus:
    """Return the status that tells a caller of this error."""
    code = grpc.StatusCode[error.code.value]
    status = status_pb2.Status(code=code.value[0], message=error.message)
    for detail in _details(error):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return RichStatus(code=code, text=error.message, details=status.SerializeToString())


def _details(error: LimnerError) -> list[Message]:
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason.value, domain=DOMAIN, metadata=error.metadata)
    ]
    if error.violations:
        bad_request = error_details_pb2.BadRequest()
        for violation in error.violations:
            bad_request.field_violations.add(field=violation.field, description=violation.description)
        details.append(bad_request)
    if error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(error.retry_after * 1e9))
        details.append(retry)
    if error.quota:
        quota = error_details_pb2.QuotaFailure()
        quota.violations.add(subject="server", description=error.quota)
        details.append(quota)
    return details
