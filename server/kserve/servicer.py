"""GRPCInferenceService: stock clients' way to the native API, whose own servicer does the work."""

from __future__ import annotations

from collections.abc import Callable

import grpc
from limner.kserve import open_inference_grpc_pb2 as oip
from limner.kserve.open_inference_grpc_pb2_grpc import GRPCInferenceServiceServicer

from engine.protocol.messages import Ready
from server.api.portrait_servicer import PortraitServicer
from server.engine_link.engines import Engines
from server.errors import EngineUnavailableError, ModelUnknownError
from server.imaging.pool import ImagingPool
from server.kserve.metadata import model_metadata
from server.kserve.request import inference
from server.kserve.response import inference_response, pixels_of


class InferenceServicer(GRPCInferenceServiceServicer):
    """Answers the Open Inference Protocol. ``is_ready`` is the server's readiness, ``is_draining`` its end.

    ``pool`` decodes pictures where their pixels are wanted.
    """

    def __init__(
        self,
        *,
        portraits: PortraitServicer,
        engines: Engines,
        version: str,
        pool: ImagingPool,
        is_ready: Callable[[], bool],
        is_draining: Callable[[], bool],
    ) -> None:
        self._portraits = portraits
        self._engines = engines
        self._version = version
        self._pool = pool
        self._is_ready = is_ready
        self._is_draining = is_draining

    async def ServerLive(  # noqa: N802 - the name in the proto, as below
        self, request: oip.ServerLiveRequest, context: grpc.aio.ServicerContext
    ) -> oip.ServerLiveResponse:
        """Say yes."""
        return oip.ServerLiveResponse(live=True)

    async def ServerReady(  # noqa: N802
        self, request: oip.ServerReadyRequest, context: grpc.aio.ServicerContext
    ) -> oip.ServerReadyResponse:
        """Tell the readiness that ``grpc.health.v1`` tells as well."""
        return oip.ServerReadyResponse(ready=self._is_ready())

    async def ModelReady(  # noqa: N802
        self, request: oip.ModelReadyRequest, context: grpc.aio.ServicerContext
    ) -> oip.ModelReadyResponse:
        """Tell whether a model's engine takes work."""
        try:
            engine = self._engines.find(request.name, field="name")
            _check_version(engine.last_ready(), request.version, field="version")
        except EngineUnavailableError:
            # Before the first engine is ready, nobody knows what it will be called.
            return oip.ModelReadyResponse(ready=False)
        return oip.ModelReadyResponse(ready=engine.is_ready and not self._is_draining())

    async def ServerMetadata(  # noqa: N802
        self, request: oip.ServerMetadataRequest, context: grpc.aio.ServicerContext
    ) -> oip.ServerMetadataResponse:
        """Tell what serves."""
        return oip.ServerMetadataResponse(name="limner", version=self._version)

    async def ModelMetadata(  # noqa: N802
        self, request: oip.ModelMetadataRequest, context: grpc.aio.ServicerContext
    ) -> oip.ModelMetadataResponse:
        """Tell a model's tensors."""
        ready = self._engines.find(request.name, field="name").last_ready()
        _check_version(ready, request.version, field="version")
        return model_metadata(ready)

    async def ModelInfer(  # noqa: N802
        self, request: oip.ModelInferRequest, context: grpc.aio.ServicerContext
    ) -> oip.ModelInferResponse:
        """Generate a portrait."""
        ready = self._engines.find(request.model_name, field="model_name").ready()
        _check_version(ready, request.model_version, field="model_version")
        asked = inference(request, model=ready.model.name)
        answer = await self._portraits.Generate(asked.generate, context)
        pixels = await self._pool.run(pixels_of, answer) if "pixels" in asked.outputs else None
        return inference_response(
            request, answer, asked.outputs, version=ready.model.weights_hash, pixels=pixels
        )


def _check_version(ready: Ready, version: str, *, field: str) -> None:
    """Hold a version against the weights that are served."""
    if version and version != ready.model.weights_hash:
        raise ModelUnknownError(f"{ready.model.name}:{version}", [ready.model.weights_hash], field=field)
