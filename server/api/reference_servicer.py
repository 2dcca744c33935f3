"""ReferenceService: upload once, generate for ever."""

from __future__ import annotations

import time

import grpc
from limner.v1 import reference_service_pb2, reference_service_pb2_grpc

from server.api.calls import current_call
from server.api.checks import Findings
from server.api.conversion.references import reference_message, upload_response
from server.api.reference_checks import (
    check_adapter,
    check_digest,
    check_image,
    check_takes_references,
)
from server.config.options import LimitOptions
from server.engine_link.engines import Engines
from server.portraits.admission import Admission
from server.portraits.reference_faults import reference_faults
from server.references.library import ReferenceLibrary
from server.tracing.references import reference_stage
from server.tracing.trace import current_trace


class ReferenceServicer(reference_service_pb2_grpc.ReferenceServiceServicer):
    """Answers uploads, questions and deletions."""

    def __init__(
        self,
        *,
        references: ReferenceLibrary,
        engines: Engines,
        admission: Admission,
        limits: LimitOptions,
    ) -> None:
        self._references = references
        self._engines = engines
        self._admission = admission
        self._limits = limits

    async def UploadReference(  # noqa: N802 - the name in the proto
        self, request: reference_service_pb2.UploadReferenceRequest, context: grpc.aio.ServicerContext
    ) -> reference_service_pb2.UploadReferenceResponse:
        """Take a picture and encode it."""
        call = current_call()
        findings = Findings()
        check_image(findings, "image", request.image, self._limits)
        ready = self._engines.find(request.model, field="model").ready()
        check_takes_references(findings, "image", ready)
        adapter = check_adapter(findings, "adapter", request.adapter, ready)
        findings.raise_any()
        tenant = call.tenant
        permit = self._admission.enter()
        current_trace().past("limner.admit", began=call.arrived, ended=time.monotonic())
        try:
            with reference_faults(image_field="image"), reference_stage("image") as note:
                resolved = note(
                    await self._references.resolve(
                        tenant, request.image, model=ready.model.name, adapter=adapter, field="image"
                    )
                )
        finally:
            permit.leave(done=False)  # uploads are served faster than portraits and would spoil their rate
        call.note(
            cache=resolved.outcome.value,
            decode_input_seconds=round(resolved.decode_seconds, 6),
            reference_seconds=round(resolved.reference_seconds, 6),
            warnings=[warning.code.value for warning in resolved.record.warnings],
        )
        return upload_response(resolved.record, resolved.outcome)

    async def GetReference(  # noqa: N802 - the name in the proto
        self, request: reference_service_pb2.GetReferenceRequest, context: grpc.aio.ServicerContext
    ) -> reference_service_pb2.GetReferenceResponse:
        """Tell what is known of a reference."""
        _check(request.digest)
        with reference_faults(digest_field="digest"):
            record = await self._references.get(current_call().tenant, request.digest)
        return reference_service_pb2.GetReferenceResponse(reference=reference_message(record, field="image"))

    async def DeleteReference(  # noqa: N802 - the name in the proto
        self, request: reference_service_pb2.DeleteReferenceRequest, context: grpc.aio.ServicerContext
    ) -> reference_service_pb2.DeleteReferenceResponse:
        """Forget a reference."""
        _check(request.digest)
        with reference_faults(digest_field="digest"):
            await self._references.delete(current_call().tenant, request.digest)
        return reference_service_pb2.DeleteReferenceResponse()


def _check(digest: str) -> None:
    findings = Findings()
    check_digest(findings, "digest", digest)
    findings.raise_any()
