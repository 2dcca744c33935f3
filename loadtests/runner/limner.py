"""Limner as a target: gRPC calls without retries, so that every answer of the server is seen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Self

import grpc
import grpc.aio
from limner.v1 import portrait_pb2, portrait_service_pb2, reference_service_pb2
from limner_client import ChannelSettings, DeadlineExceeded, LimnerError, Overloaded
from limner_client.channel import failed
from limner_client.effects import Call

from loadtests.runner.errors import TargetError
from loadtests.runner.gallery import Gallery
from loadtests.runner.request import PlannedRequest
from loadtests.runner.target import Outcome, Stages, Status
from loadtests.runner.tasks import asking

GENERATE = "/limner.v1.PortraitService/Generate"
UPLOAD = "/limner.v1.ReferenceService/UploadReference"
UPLOADS_AT_ONCE = 8
UPLOAD_SECONDS = 60.0
CALL_SECONDS = 600.0
"""The deadline of a request that has none of its own."""


class LimnerTarget:
    """Sends requests to a Limner server, as a tenant of its own so that a new run meets cold caches."""

    def __init__(self, target: str, gallery: Gallery, *, tenant: str) -> None:
        self._target = target
        self._gallery = gallery
        self._metadata = (("x-limner-tenant", tenant),)

    async def __aenter__(self) -> Self:
        # A subchannel pool of its own: one connection to this server, whatever other channels the process has.
        arguments = [*ChannelSettings().arguments(), ("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.aio.insecure_channel(self._target, arguments)
        self._generate: Any = self._channel.unary_unary(
            GENERATE,
            request_serializer=portrait_service_pb2.GenerateRequest.SerializeToString,
            response_deserializer=portrait_service_pb2.GenerateResponse.FromString,
        )
        self._upload: Any = self._channel.unary_unary(
            UPLOAD,
            request_serializer=reference_service_pb2.UploadReferenceRequest.SerializeToString,
            response_deserializer=reference_service_pb2.UploadReferenceResponse.FromString,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def prepare(self, people: Iterable[int]) -> None:
        """Upload these people's portraits. Raises TargetError."""
        limit = asyncio.Semaphore(UPLOADS_AT_ONCE)

        async def upload(person: int) -> None:
            picture = self._gallery.picture(person)
            request = reference_service_pb2.UploadReferenceRequest(image=picture.data)
            async with limit:
                try:
                    await self._upload(request, timeout=UPLOAD_SECONDS, metadata=self._metadata)
                except grpc.aio.AioRpcError as error:
                    detail = f"{error.code().name}: {error.details()}"
                    raise TargetError(f"{self._target} did not take a reference: {detail}") from error

        async with asking() as group:
            for person in people:
                group.create_task(upload(person))

    async def call(self, request: PlannedRequest) -> Outcome:
        """Generate one portrait; a digest that the server does not know is followed by the picture."""
        until = time.monotonic() + (request.deadline or CALL_SECONDS)
        outcome = await self._ask(request, until, with_picture=request.brings_picture)
        if outcome.reason == "REFERENCE_NOT_FOUND" and request.person is not None:
            return replace(await self._ask(request, until, with_picture=True), resent=True)
        return outcome

    async def _ask(self, request: PlannedRequest, until: float, *, with_picture: bool) -> Outcome:
        message = self.message(request, with_picture=with_picture)
        timeout = max(0.0, until - time.monotonic())
        try:
            return _done(await self._generate(message, timeout=timeout, metadata=self._metadata))
        except grpc.aio.AioRpcError as error:
            return _failed(error)

    def message(self, request: PlannedRequest, *, with_picture: bool) -> portrait_service_pb2.GenerateRequest:
        """Build the request as it goes out."""
        spec = portrait_pb2.PortraitSpec(
            prompt=request.prompt,
            steps=request.steps,
            sampler=f"SAMPLER_{request.sampler.upper()}",
            guidance_scale=request.guidance_scale,
            width=request.width,
            height=request.height,
            image_count=request.images,
            seed=request.seed,
            format=f"IMAGE_FORMAT_{request.format.upper()}",
            priority=f"PRIORITY_{request.priority.upper()}",
        )
        if request.person is not None:
            picture = self._gallery.picture(request.person)
            spec.ip_adapter_scale = request.ip_adapter_scale
            if with_picture:
                spec.reference_image = picture.data
            else:
                spec.reference_digest = picture.digest
        return portrait_service_pb2.GenerateRequest(portrait=spec)


def _done(answer: portrait_service_pb2.GenerateResponse) -> Outcome:
    timings = answer.summary.timings
    cache = portrait_pb2.CacheOutcome.Name(answer.summary.reference.cache_outcome)
    told = cache.removeprefix("CACHE_OUTCOME_").lower()
    return Outcome(
        status=Status.OK,
        images=len(answer.images),
        pictures=tuple(image.data for image in answer.images),
        cache=None if told == "unspecified" else told,
        stages=Stages(
            reference=timings.reference_seconds,
            queue=timings.queue_seconds,
            prompt=timings.encode_prompt_seconds,
            denoise=timings.denoise_seconds,
            decode=timings.decode_latents_seconds,
            encode=timings.encode_output_seconds,
            total=timings.total_seconds,
        ),
        batch_rows=timings.mean_batch_rows,
    )


def _failed(error: grpc.aio.AioRpcError) -> Outcome:
    typed: LimnerError = failed(
        error, Call(path="", request=b"", metadata=(("x-request-id", ""),), timeout=0.0)
    )
    status = Status.FAILED
    # gRPC's own RESOURCE_EXHAUSTED, without a reason, is a refusal too: the limit of calls at once.
    if isinstance(typed, Overloaded) or typed.code == "RESOURCE_EXHAUSTED":
        status = Status.REFUSED
    elif isinstance(typed, DeadlineExceeded):
        status = Status.EXPIRED
    return Outcome(
        status=status,
        reason=typed.reason,
        message=typed.message,
        retry_after=typed.retry_after,
    )
