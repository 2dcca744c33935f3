"""The services of the API and their methods, as the proto has them."""

from __future__ import annotations

from limner.v1 import model_service_pb2, portrait_service_pb2, reference_service_pb2

from server.metrics.labels import RpcType

_SERVICES = tuple(
    service
    for module in (portrait_service_pb2, reference_service_pb2, model_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
)
SERVICE_NAMES: tuple[str, ...] = tuple(service.full_name for service in _SERVICES)


def rpc_types() -> dict[str, RpcType]:
    """Return the full name of each method with its type; none takes a stream."""
    return {
        f"/{service.full_name}/{method.name}": RpcType.SERVER_STREAM
        if method.server_streaming
        else RpcType.UNARY
        for service in _SERVICES
        for method in service.methods
    }
