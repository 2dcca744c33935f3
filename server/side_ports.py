"""The ports beside that of the service, both in plain text: health for probes, metrics for Prometheus."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from server.config.listen_options import ListenOptions
from server.metrics.http import MetricsEndpoint
from server.ports import BindError, address_of

HEALTH_RPCS = 64
"""Health checks at once. Watches, which stay, would use them up and keep out the probes that the port is for."""


class SidePorts:
    """Binds and starts what the options ask for; the addresses are empty before that, and for what is off."""

    def __init__(self) -> None:
        self.health_address = ""
        self.metrics_url = ""
        self._health: grpc.aio.Server | None = None
        self._metrics: MetricsEndpoint | None = None

    async def start(
        self, options: ListenOptions, *, health: health_pb2_grpc.HealthServicer, registry: CollectorRegistry
    ) -> None:
        """Serve. Raises ``BindError``, and ``OSError`` for the port of the metrics."""
        if options.metrics_port >= 0:
            self._metrics = MetricsEndpoint(registry, port=options.metrics_port, address=options.metrics_host)
            self.metrics_url = f"http://{address_of(options.metrics_host, self._metrics.port)}/metrics"
        if options.health_port >= 0:
            self._health = grpc.aio.server(
                options=[("grpc.so_reuseport", 0)], maximum_concurrent_rpcs=HEALTH_RPCS
            )
            self._health.add_generic_rpc_handlers((_checks(health),))
            wanted = address_of(options.host, options.health_port)
            try:
                port = self._health.add_insecure_port(wanted)
            except RuntimeError as error:
                raise BindError(f"cannot listen on {wanted}: {error}") from error
            self.health_address = address_of(options.host, port)
            await self._health.start()

    async def stop(self) -> None:
        """End both at once."""
        if self._health is not None:
            await self._health.stop(None)
        if self._metrics is not None:
            self._metrics.close()


def _checks(health: health_pb2_grpc.HealthServicer) -> grpc.GenericRpcHandler:
    """Return the handler of ``Check`` alone."""
    check = grpc.unary_unary_rpc_method_handler(
        health.Check,
        request_deserializer=health_pb2.HealthCheckRequest.FromString,
        response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check})
