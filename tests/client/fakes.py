"""A servicer that does as it is told, in this process, on a real port."""
# ruff: noqa: N802  gRPC names its methods so

import hashlib
import threading
from collections import deque
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from limner.v1 import (
    model_service_pb2,
    model_service_pb2_grpc,
    portrait_pb2,
    portrait_service_pb2,
    portrait_service_pb2_grpc,
    reference_service_pb2,
    reference_service_pb2_grpc,
)

PICTURE = b"\x89PNG\r\n\x1a\n not really a picture"


@dataclass
class Refusal:
    """How the servicer fails one call."""

    code: grpc.StatusCode
    reason: str = ""
    message: str = "refused"
    retry_after: float | None = None
    violations: tuple[tuple[str, str], ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)

    def abort(self, context: grpc.ServicerContext) -> None:
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        details: list[Any] = []
        if self.reason:
            info = error_details_pb2.ErrorInfo(reason=self.reason, domain="limner.v1", metadata=self.metadata)
            details.append(info)
        if self.violations:
            bad = error_details_pb2.BadRequest()
            for name, description in self.violations:
                bad.field_violations.add(field=name, description=description)
            details.append(bad)
        if self.retry_after is not None:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(int(self.retry_after * 1e9))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        if details:
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(self.code, self.message)


class FakeLimner(
    portrait_service_pb2_grpc.PortraitServiceServicer,
    reference_service_pb2_grpc.ReferenceServiceServicer,
    model_service_pb2_grpc.ModelServiceServicer,
):
    """Answers at once, after the refusals in `refusals`; remembers what it was asked.

    `breaks_after` makes the next stream fail after so many messages. `hangs` makes calls wait until they are
    cancelled.
    """

    def __init__(self) -> None:
        self.refusals: deque[Refusal] = deque()
        self.known: set[str] = set()
        self.calls: list[tuple[str, Any, dict[str, str]]] = []
        self.stores_uploads = True
        self.breaks_after: deque[int] = deque()
        self.hangs = False
        self.started = threading.Event()
        self.cancelled = threading.Event()
        self.health = health.HealthServicer()
        for service in ("liveness", "readiness"):
            self.health.set(service, health_pb2.HealthCheckResponse.SERVING)

    def named(self, method: str) -> list[Any]:
        """Give the requests of one method."""
        return [request for name, request, _ in self.calls if name == method]

    def _enter(self, method: str, request: Any, context: grpc.ServicerContext) -> None:
        self.calls.append((method, request, dict(context.invocation_metadata())))
        context.add_callback(self.cancelled.set)
        self.started.set()
        if self.hangs:
            self.cancelled.wait(20)
        if self.refusals:
            self.refusals.popleft().abort(context)

    def _find(self, spec: portrait_pb2.PortraitSpec, context: grpc.ServicerContext) -> list[str]:
        """Give the digests of the references, all of which must be known or here."""
        given = [(spec.reference_image, spec.reference_digest)]
        given += [(reference.image, reference.digest) for reference in spec.references]
        unknown = [digest for image, digest in given if digest and digest not in self.known]
        if unknown:
            metadata = {"digest": unknown[0]} | ({"digests": " ".join(unknown)} if unknown[1:] else {})
            Refusal(grpc.StatusCode.NOT_FOUND, "REFERENCE_NOT_FOUND", metadata=metadata).abort(context)
        return [
            hashlib.sha256(image).hexdigest() if image else digest
            for image, digest in given
            if image or digest
        ]

    def Generate(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._enter("Generate", request, context)
        digests = self._find(request.portrait, context)
        spec = request.portrait
        images = [_image(spec, index) for index in range(max(1, spec.image_count))]
        return portrait_service_pb2.GenerateResponse(
            task_id="task-1", images=images, summary=_summary(spec, digests)
        )

    def GenerateStream(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._enter("GenerateStream", request, context)
        spec = request.portrait
        digests = self._find(spec, context)
        steps = spec.steps or 2
        news: list[dict[str, Any]] = [
            {"queued": portrait_service_pb2.Queued(position=3, starts_in_seconds=0.5, finishes_in_seconds=2)}
        ]
        for step in range(1, steps + 1):
            news.append({"progress": portrait_service_pb2.Progress(step=step, steps=steps)})
            if request.preview_interval and step % request.preview_interval == 0:
                preview = portrait_service_pb2.Preview(
                    step=step, data=b"small", format=portrait_pb2.IMAGE_FORMAT_PNG
                )
                news.append({"preview": preview})
        news += [{"image": _image(spec, index)} for index in range(max(1, spec.image_count))]
        news.append({"completed": _summary(spec, digests)})
        limit = self.breaks_after.popleft() if self.breaks_after else None
        for told, event in enumerate(news):
            if told == limit:
                Refusal(grpc.StatusCode.UNAVAILABLE, "ENGINE_UNAVAILABLE").abort(context)
            yield portrait_service_pb2.GenerateStreamResponse(task_id="task-1", **event)

    def UploadReference(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._enter("UploadReference", request, context)
        digest = hashlib.sha256(request.image).hexdigest()
        was_known = digest in self.known
        if self.stores_uploads:
            self.known.add(digest)
        return reference_service_pb2.UploadReferenceResponse(
            reference=_reference(digest, len(request.image)),
            cache_outcome=portrait_pb2.CACHE_OUTCOME_HIT if was_known else portrait_pb2.CACHE_OUTCOME_MISS,
        )

    def GetReference(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._enter("GetReference", request, context)
        self._find(portrait_pb2.PortraitSpec(reference_digest=request.digest), context)
        return reference_service_pb2.GetReferenceResponse(reference=_reference(request.digest, 0))

    def DeleteReference(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._enter("DeleteReference", request, context)
        self._find(portrait_pb2.PortraitSpec(reference_digest=request.digest), context)
        self.known.discard(request.digest)
        return reference_service_pb2.DeleteReferenceResponse()

    def ListModels(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._enter("ListModels", request, context)
        model = model_service_pb2.Model(
            name="embedded",
            family="sd1",
            adapters=["base"],
            default_width=128,
            default_height=128,
            size_multiple=8,
            min_size=64,
            max_size=256,
            prompt_tokens=77,
            samplers=[
                model_service_pb2.SamplerLimits(
                    sampler=portrait_pb2.SAMPLER_DPMPP_2M, min_steps=1, max_steps=100
                )
            ],
            default_steps=20,
            default_guidance_scale=5.6,
            weights_hash="abc123",
            buckets=[1, 2, 4],
            reference_layers=[portrait_pb2.REFERENCE_LAYERS_ALL, portrait_pb2.REFERENCE_LAYERS_STYLE],
        )
        return model_service_pb2.ListModelsResponse(models=[model])

    def GetLimits(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._enter("GetLimits", request, context)
        limits = model_service_pb2.Limits(
            max_image_bytes=16_777_216,
            max_image_pixels=50_000_000,
            min_image_side=16,
            max_prompt_characters=2000,
            max_steps=100,
            max_images=8,
            max_guidance_scale=30,
            max_ip_adapter_scale=2,
            max_requests_in_flight=256,
            max_references=4,
            max_reference_weight=1.6,
        )
        return model_service_pb2.GetLimitsResponse(limits=limits)


def _image(spec: portrait_pb2.PortraitSpec, index: int) -> portrait_pb2.PortraitImage:
    return portrait_pb2.PortraitImage(
        index=index,
        data=PICTURE,
        format=spec.format or portrait_pb2.IMAGE_FORMAT_PNG,
        width=spec.width or 128,
        height=spec.height or 128,
        seed=spec.seed + index,
    )


def _summary(spec: portrait_pb2.PortraitSpec, digests: list[str]) -> portrait_pb2.GenerationSummary:
    summary = portrait_pb2.GenerationSummary(
        parameters=portrait_pb2.GenerationParameters(
            model="embedded",
            sampler=spec.sampler or portrait_pb2.SAMPLER_DPMPP_2M,
            steps=spec.steps or 2,
            guidance_scale=5.6,
            ip_adapter_scale=spec.ip_adapter_scale or 1,
            width=spec.width or 128,
            height=spec.height or 128,
            seed=spec.seed,
            prompt=spec.prompt,
            adapter=spec.adapter or ("base" if digests else ""),
            reference_layers=spec.reference_layers
            or (portrait_pb2.REFERENCE_LAYERS_ALL if digests else None),
        ),
        timings=portrait_pb2.Timings(
            reference_seconds=0.0004, denoise_seconds=0.25, total_seconds=0.3, mean_batch_rows=2
        ),
    )
    weights = [reference.weight for reference in spec.references] or [1.0] * len(digests)
    for digest, weight in zip(digests, weights, strict=True):
        summary.references.add(digest=digest, cache_outcome=portrait_pb2.CACHE_OUTCOME_HIT, weight=weight)
    if digests:
        summary.reference.CopyFrom(summary.references[0])
        summary.warnings.add(
            code=portrait_pb2.WARNING_CODE_REFERENCE_SMALL,
            field="portrait.reference_image",
            message="The reference is small.",
            action="Use a larger one.",
        )
    return summary


def _reference(digest: str, size: int) -> reference_service_pb2.Reference:
    reference = reference_service_pb2.Reference(
        digest=digest, width=128, height=96, size_bytes=size, format=portrait_pb2.IMAGE_FORMAT_PNG
    )
    reference.create_time.FromJsonString("2026-11-23T07:00:00Z")
    return reference


def serve(
    fake: FakeLimner, address: str = "127.0.0.1:0", options: tuple[tuple[str, Any], ...] = ()
) -> tuple[grpc.Server, str]:
    """Start a server for the fake and give its address."""
    server = grpc.server(futures.ThreadPoolExecutor(8), options=options)
    portrait_service_pb2_grpc.add_PortraitServiceServicer_to_server(fake, server)
    reference_service_pb2_grpc.add_ReferenceServiceServicer_to_server(fake, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(fake, server)
    health_pb2_grpc.add_HealthServicer_to_server(fake.health, server)
    port = server.add_insecure_port(address)
    server.start()
    return server, f"{address.rpartition(':')[0]}:{port}"
