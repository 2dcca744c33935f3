from __future__ import annotations

import asyncio

import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from limner.v1.model_service_pb2 import GetLimitsRequest
from limner.v1.portrait_pb2 import PortraitSpec
from limner.v1.portrait_service_pb2 import GenerateRequest, GenerateStreamRequest

from server.api.call_traces import CallTraces
from server.api.calls import Call
from server.config.options import DrainOptions
from tests.server.answers import drained, refused
from tests.server.running import Serving, run_server, until


async def generate(serving: Serving, prompt: str) -> int:
    answer = await serving.portraits.Generate(GenerateRequest(portrait=PortraitSpec(prompt=prompt)))
    return len(answer.images)


async def until_told(serving: Serving) -> None:
    async for answer in serving.health.Watch(HealthCheckRequest(service="readiness")):
        if answer.status == HealthCheckResponse.NOT_SERVING:
            return


async def test_a_drain_loses_nothing() -> None:
    async with run_server(drain=DrainOptions(notice_seconds=2, grace_seconds=60)) as serving:
        before = [asyncio.create_task(generate(serving, "HOLD")) for _ in range(16)]
        await serving.script.until(lambda: len(serving.script.held) == 16)
        draining = asyncio.create_task(serving.app.drain())
        await until_told(serving)
        # While load balancers have not noticed yet, new calls are served.
        assert await asyncio.gather(*(generate(serving, "a sailor") for _ in range(8))) == [1] * 8
        await until(lambda: serving.app.gate.is_closed)
        assert (await refused(serving.models.GetLimits(GetLimitsRequest()))).reason == "DRAINING"
        told = await refused(serving.portraits.Generate(GenerateRequest(portrait=PortraitSpec(prompt="x"))))
        assert (told.code, told.reason) == ("UNAVAILABLE", "DRAINING")
        assert told.retry_seconds is not None
        liveness = await serving.health.Check(HealthCheckRequest(service="liveness"))
        assert liveness.status == HealthCheckResponse.SERVING
        assert not draining.done()
        serving.script.release.set()
        assert await asyncio.gather(*before) == [1] * 16
        await draining
        await serving.app.stop()
        assert serving.script.cancelled == []
        assert "drain_incomplete" not in [line["event"] for line in serving.logs]


async def test_who_outlives_the_grace_is_told() -> None:
    async with run_server(drain=DrainOptions(notice_seconds=0, grace_seconds=0.05)) as serving:
        request = GenerateRequest(portrait=PortraitSpec(prompt="HOLD"))
        joined = GenerateRequest(portrait=PortraitSpec(prompt="HOLD"), idempotency_key="k")
        stream = GenerateStreamRequest(portrait=PortraitSpec(prompt="HOLD"))
        calls = [
            asyncio.create_task(refused(call))
            for call in (
                serving.portraits.Generate(request),
                serving.portraits.Generate(joined),
                serving.portraits.Generate(joined),
                drained(serving.portraits.GenerateStream(stream)),
            )
        ]
        await until(lambda: serving.app.gate.in_flight == 4 and len(serving.script.held) == 3)
        await serving.app.drain()
        assert serving.lines("drain_incomplete")[0]["in_flight"] == 4
        assert serving.app.gate.in_flight == 0
        for told in await asyncio.gather(*calls):
            assert (told.code, told.reason) == ("UNAVAILABLE", "DRAINING")
            assert told.retry_seconds is not None
        assert {line["reason"] for line in serving.lines("call")} == {"DRAINING"}
        count = serving.app.metrics.registry.get_sample_value
        assert count("limner_requests_cancelled_total", {"phase": "queued"}) == 0
        await serving.script.until(lambda: len(serving.script.cancelled) == 3)


async def test_a_stop_at_once_tells_who_is_in_flight() -> None:
    async with run_server() as serving:
        request = GenerateRequest(portrait=PortraitSpec(prompt="HOLD"))
        call = asyncio.create_task(refused(serving.portraits.Generate(request)))
        await serving.script.until(lambda: len(serving.script.held) == 1)
        await serving.app.stop(at_once=True)
        assert (await call).reason == "DRAINING"


async def test_a_drain_while_the_engine_comes_back_does_not_say_ready() -> None:
    async with run_server(drain=DrainOptions(notice_seconds=0, grace_seconds=30)) as serving:
        held = asyncio.create_task(generate(serving, "HOLD"))
        await serving.script.until(lambda: len(serving.script.held) == 1)
        draining = asyncio.create_task(serving.app.drain())
        await until_told(serving)
        serving.launcher.engines[0].kill()
        await serving.script.until(lambda: len(serving.script.submitted) == 2)
        assert not serving.app.health.is_ready
        serving.script.release.set()
        assert await held == 1
        await draining


async def test_a_call_whose_trace_fails_leaves_and_holds_up_no_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: CallTraces, call: Call) -> None:
        raise RuntimeError("as told")

    async with run_server(drain=DrainOptions(notice_seconds=0, grace_seconds=60)) as serving:
        monkeypatch.setattr(CallTraces, "started", fails)
        told = await refused(serving.models.GetLimits(GetLimitsRequest()))
        assert (told.code, told.reason) == ("INTERNAL", "INTERNAL")
        assert [line["code"] for line in serving.lines("call")] == ["INTERNAL"]
        async with asyncio.timeout(10):
            await serving.app.drain()
