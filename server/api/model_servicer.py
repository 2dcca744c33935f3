"""ModelService: what the server can do."""

from __future__ import annotations

import grpc
from limner.v1 import model_service_pb2, model_service_pb2_grpc

from server.api.conversion.models import limits_message, model_message
from server.config.options import LimitOptions
from server.engine_link.engines import Engines


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """Lists models and limits."""

    def __init__(self, *, engines: Engines, limits: LimitOptions, max_requests_in_flight: int) -> None:
        self._engines = engines
        self._limits = limits
        self._max_requests_in_flight = max_requests_in_flight

    async def ListModels(  # noqa: N802 - the name in the proto
        self, request: model_service_pb2.ListModelsRequest, context: grpc.aio.ServicerContext
    ) -> model_service_pb2.ListModelsResponse:
        """List the models; the first one is the default."""
        return model_service_pb2.ListModelsResponse(
            models=[model_message(engine.last_ready()) for engine in self._engines]
        )

    async def GetLimits(  # noqa: N802 - the name in the proto
        self, request: model_service_pb2.GetLimitsRequest, context: grpc.aio.ServicerContext
    ) -> model_service_pb2.GetLimitsResponse:
        """Tell the limits; needs no engine."""
        limits = limits_message(self._limits, max_requests_in_flight=self._max_requests_in_flight)
        return model_service_pb2.GetLimitsResponse(limits=limits)
