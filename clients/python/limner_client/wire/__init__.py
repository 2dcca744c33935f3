"""The one place where protobuf messages exist: values in, bytes out, and back."""

from limner_client.wire.catalog import (
    decode_get_limits,
    decode_health_check,
    decode_list_models,
    encode_get_limits,
    encode_health_check,
    encode_list_models,
)
from limner_client.wire.failures import decode_failure
from limner_client.wire.methods import (
    DELETE_REFERENCE,
    GENERATE,
    GENERATE_STREAM,
    GET_LIMITS,
    GET_REFERENCE,
    HEALTH_CHECK,
    LIST_MODELS,
    LIVENESS,
    READINESS,
    UPLOAD_REFERENCE,
)
from limner_client.wire.portraits import decode_event, decode_generate
from limner_client.wire.references import (
    decode_get_reference,
    decode_upload_reference,
    encode_delete_reference,
    encode_get_reference,
    encode_upload_reference,
)
from limner_client.wire.specs import encode_generate, encode_generate_stream

__all__ = [
    "DELETE_REFERENCE",
    "GENERATE",
    "GENERATE_STREAM",
    "GET_LIMITS",
    "GET_REFERENCE",
    "HEALTH_CHECK",
    "LIST_MODELS",
    "LIVENESS",
    "READINESS",
    "UPLOAD_REFERENCE",
    "decode_event",
    "decode_failure",
    "decode_generate",
    "decode_get_limits",
    "decode_get_reference",
    "decode_health_check",
    "decode_list_models",
    "decode_upload_reference",
    "encode_delete_reference",
    "encode_generate",
    "encode_generate_stream",
    "encode_get_limits",
    "encode_get_reference",
    "encode_health_check",
    "encode_list_models",
    "encode_upload_reference",
]
