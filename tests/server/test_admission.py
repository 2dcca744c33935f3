from __future__ import annotations

import asyncio

import pytest
from limner.v1.portrait_pb2 import PortraitSpec
from limner.v1.portrait_service_pb2 import GenerateRequest
from limner.v1.reference_service_pb2 import UploadReferenceRequest

from server.config.options import AdmissionOptions
from server.errors import OverloadedError
from server.portraits.admission import Admission
from tests.server.answers import refused
from tests.server.imaging.pictures import file_of, scenery
from tests.server.running import run_server


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_permits_are_bounded_and_come_back() -> None:
    admission = Admission(2)
    first, _ = admission.enter(), admission.enter()
    with pytest.raises(OverloadedError) as caught:
        admission.enter()
    assert caught.value.metadata == {"limit": "2"}
    first.leave(done=False)
    assert admission.in_flight == 1
    admission.enter()
    with pytest.raises(AssertionError):
        first.leave(done=False)


def test_the_wait_that_is_told_follows_the_rate_of_service() -> None:
    clock = Clock()
    admission = Admission(4, clock)
    permits = [admission.enter() for _ in range(4)]
    for _ in range(50):
        clock.now += 0.5
        permits.pop(0).leave(done=True)
        permits.append(admission.enter())
    waits = []
    for _ in range(3):
        with pytest.raises(OverloadedError) as caught:
            admission.enter()
        waits.append(caught.value.retry_after)
    assert waits == pytest.approx([0.5, 1.0, 1.5])


def test_idle_time_is_no_rate_of_service() -> None:
    clock = Clock()
    admission = Admission(2, clock)
    for _ in range(5):
        clock.now += 1000
        admission.enter().leave(done=True)
    assert admission.retry_seconds() == 1.0


async def test_too_many_requests_are_refused_before_any_picture_is_decoded() -> None:
    async with run_server(admission=AdmissionOptions(max_requests_in_flight=2)) as serving:
        held = [
            asyncio.create_task(_generate(serving, GenerateRequest(portrait=PortraitSpec(prompt="HOLD"))))
            for _ in range(2)
        ]
        await serving.script.until(lambda: len(serving.script.held) == 2)
        image = file_of(scenery(), "PNG")
        spec = PortraitSpec(prompt="a sailor", reference_image=image)
        for call in (
            serving.portraits.Generate(GenerateRequest(portrait=spec)),
            serving.portraits.Generate(GenerateRequest(portrait=spec, idempotency_key="k")),
            serving.references.UploadReference(UploadReferenceRequest(image=image)),
        ):
            told = await refused(call)
            assert (told.code, told.reason) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
            assert told.metadata == {"limit": "2"}
            assert told.quota == ["requests in flight"]
            assert told.retry_seconds is not None
            assert 0.1 <= told.retry_seconds <= 30
        assert serving.script.encoded == 0
        # What is wrong with a request is told however full the server is.
        assert (await refused(serving.portraits.Generate(GenerateRequest()))).reason == "INVALID_FIELD"
        serving.script.release.set()
        await asyncio.gather(*held)
        await serving.portraits.Generate(GenerateRequest(portrait=spec))


async def _generate(serving, request):  # type: ignore[no-untyped-def]
    return await serving.portraits.Generate(request)


async def test_rpcs_beyond_the_last_limit_are_refused_before_they_are_read() -> None:
    options = AdmissionOptions(max_requests_in_flight=8, max_concurrent_rpcs=4)
    async with run_server(admission=options) as serving:
        request = GenerateRequest(portrait=PortraitSpec(prompt="HOLD"))
        calls = [serving.portraits.Generate(request) for _ in range(8)]
        codes = [asyncio.create_task(call.code()) for call in calls]
        refusals, waiting = await asyncio.wait(codes, return_when=asyncio.FIRST_COMPLETED)
        assert {code.result().name for code in refusals} == {"RESOURCE_EXHAUSTED"}
        serving.script.release.set()
        await asyncio.wait(waiting)
        told = [await code for code in codes]
        assert 3 <= [code.name for code in told].count("OK") <= 4
