"""References as the API's messages."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp
from limner.v1 import portrait_pb2, reference_service_pb2

from server.api.conversion.names import enum_value
from server.api.conversion.warnings import warning_message
from server.references.record import CacheOutcome, ReferenceRecord


def reference_message(record: ReferenceRecord, *, field: str) -> reference_service_pb2.Reference:
    """Return what is known of a reference; ``field`` is the one that its warnings are about."""
    created = Timestamp()
    created.FromDatetime(record.created)
    return reference_service_pb2.Reference(
        digest=record.digest,
        width=record.width,
        height=record.height,
        size_bytes=record.size_bytes,
        format=enum_value(portrait_pb2.ImageFormat, record.format.name),
        warnings=[warning_message(warning, field=field) for warning in record.warnings],
        create_time=created,
    )


def upload_response(
    record: ReferenceRecord, outcome: CacheOutcome
) -> reference_service_pb2.UploadReferenceResponse:
    """Return the answer to an upload."""
    return reference_service_pb2.UploadReferenceResponse(
        reference=reference_message(record, field="image"),
        cache_outcome=enum_value(portrait_pb2.CacheOutcome, outcome.name),
    )
