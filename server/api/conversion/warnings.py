"""Warnings as the API's messages."""

from __future__ import annotations

from limner.v1 import portrait_pb2

from server.api.conversion.names import enum_value
from server.portraits.news import PortraitWarning
from server.references.record import ReferenceWarning


def warning_message(warning: PortraitWarning | ReferenceWarning, *, field: str) -> portrait_pb2.Warning:
    """Return a warning about a field."""
    return portrait_pb2.Warning(
        code=enum_value(portrait_pb2.WarningCode, warning.code.value),
        field=field,
        message=warning.message,
        action=warning.action,
    )
