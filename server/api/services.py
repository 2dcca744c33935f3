"""The services that are served and their methods, as the protos have them."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.descriptor import ServiceDescriptor
from limner.v1 import model_service_pb2, portrait_service_pb2, reference_service_pb2

from server.metrics.labels import RpcType

NATIVE: tuple[ServiceDescriptor, ...] = tuple(
    service
    for module in (portrait_service_pb2, reference_service_pb2, model_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
)

PROBES = frozenset(
    {
        "/inference.GRPCInferenceService/ServerLive",
        "/inference.GRPCInferenceService/ServerReady",
    }
)
"""Asked every few seconds, like health checks: neither refused while draining nor logged, counted or traced."""


def served(*, kserve: bool) -> tuple[ServiceDescriptor, ...]:
    """Return the services, with the Open Inference Protocol's where it is served.

    Its messages are loaded then and only then: their package, ``inference``, is other projects' as well, and a process
    takes one such description.
    """
    if not kserve:
        return NATIVE
    from limner.kserve import open_inference_grpc_pb2

    return (*NATIVE, *open_inference_grpc_pb2.DESCRIPTOR.services_by_name.values())


def rpc_types(services: Iterable[ServiceDescriptor]) -> dict[str, RpcType]:
    """Return the full name of each method with its type, probes left out; none takes a stream."""
    types = {
        f"/{service.full_name}/{method.name}": RpcType.SERVER_STREAM
        if method.server_streaming
        else RpcType.UNARY
        for service in services
        for method in service.methods
    }
    return {method: kind for method, kind in types.items() if method not in PROBES}
