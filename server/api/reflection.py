"""Server reflection under both names: v1, which clients ask for first, and v1alpha, whose messages are the same."""

from __future__ import annotations

from collections.abc import Iterable

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

V1ALPHA = reflection.SERVICE_NAME
V1 = "grpc.reflection.v1.ServerReflection"


def reflection_handlers(services: Iterable[str]) -> list[grpc.GenericRpcHandler]:
    """Return handlers that describe ``services``, and reflection itself as v1alpha, whose descriptors are at hand."""
    servicer = reflection.aio.ReflectionServicer([*services, V1ALPHA])
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return [
        grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": method}) for name in (V1, V1ALPHA)
    ]
