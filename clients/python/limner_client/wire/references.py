"""References: uploads, questions and deletions."""

from datetime import UTC

from limner.v1 import reference_service_pb2

from limner_client.choices import CacheOutcome
from limner_client.reference import Reference
from limner_client.wire.portraits import decode_cache_outcome, decode_format, decode_warning


def encode_upload_reference(image: bytes, adapter: str, model: str) -> bytes:
    """Encode an UploadReferenceRequest."""
    request = reference_service_pb2.UploadReferenceRequest(image=image, adapter=adapter, model=model)
    return request.SerializeToString()


def decode_upload_reference(data: bytes) -> Reference:
    """Decode an UploadReferenceResponse."""
    reply = reference_service_pb2.UploadReferenceResponse.FromString(data)
    return _reference(reply.reference, decode_cache_outcome(reply.cache_outcome))


def encode_get_reference(digest: str) -> bytes:
    """Encode a GetReferenceRequest."""
    return reference_service_pb2.GetReferenceRequest(digest=digest).SerializeToString()


def decode_get_reference(data: bytes) -> Reference:
    """Decode a GetReferenceResponse."""
    return _reference(reference_service_pb2.GetReferenceResponse.FromString(data).reference, None)


def encode_delete_reference(digest: str) -> bytes:
    """Encode a DeleteReferenceRequest."""
    return reference_service_pb2.DeleteReferenceRequest(digest=digest).SerializeToString()


def _reference(reference: reference_service_pb2.Reference, outcome: CacheOutcome | None) -> Reference:
    has_time = reference.HasField("create_time")
    return Reference(
        digest=reference.digest,
        width=reference.width,
        height=reference.height,
        size_bytes=reference.size_bytes,
        format=decode_format(reference.format),
        warnings=tuple(decode_warning(warning) for warning in reference.warnings),
        create_time=reference.create_time.ToDatetime(tzinfo=UTC) if has_time else None,
        cache_outcome=outcome,
    )
