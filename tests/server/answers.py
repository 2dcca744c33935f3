"""Read the rich errors that a call ended with."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2


@dataclass
class Refusal:
    """A call's error, unpacked."""

    code: str
    text: str
    reason: str = ""
    domain: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    violations: dict[str, str] = field(default_factory=dict)
    retry_seconds: float | None = None
    quota: list[str] = field(default_factory=list)
    trailing: dict[str, Any] = field(default_factory=dict)


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    refusal = Refusal(code=error.code().name, text=error.details() or "")
    refusal.trailing = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(refusal.trailing.get("grpc-status-details-bin", b""))
    for packed in status.details:
        for kind in (
            error_details_pb2.ErrorInfo,
            error_details_pb2.BadRequest,
            error_details_pb2.RetryInfo,
            error_details_pb2.QuotaFailure,
        ):
            if not packed.Is(kind.DESCRIPTOR):
                continue
            detail: Any = kind()
            packed.Unpack(detail)
            match kind.__name__:
                case "ErrorInfo":
                    refusal.reason, refusal.domain = detail.reason, detail.domain
                    refusal.metadata = dict(detail.metadata)
                case "BadRequest":
                    refusal.violations = {v.field: v.description for v in detail.field_violations}
                case "RetryInfo":
                    refusal.retry_seconds = detail.retry_delay.ToMilliseconds() / 1000
                case "QuotaFailure":
                    refusal.quota = [violation.description for violation in detail.violations]
    return refusal


async def refused(call: Awaitable[Any]) -> Refusal:
    """Wait for a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return refusal_of(caught.value)


async def drained(stream: Any) -> list[Any]:
    """Read a stream to its end."""
    return [message async for message in stream]
