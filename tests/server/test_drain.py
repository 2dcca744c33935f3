from __future__ import annotations

import asyncio

from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from limner.v1.model_service_pb2 import GetLimitsRequest
from limner.v1.portrait_pb2 import PortraitSpec
from limner.v1.portrait_service_pb2 import GenerateRequest

from server.config.options import DrainOptions
from tests.server.answers import refused
from tests.server.running import Serving, run_server, until


async def generate(serving: Serving, prompt: str) -> int:
    answer = await serving.portraits.Generate(GenerateRequest(portrait=PortraitSpec(prompt=prompt)))
    return len(answer.images)


async def until_told(serving: Serving) -> None:
    async for answer in serving.health.Watch(HealthCheckRequest(service="readiness")):
        if answer.status == HealthCheckResponse.NOT_SERVING:
            return


async def test_a_drain_loses_nothing() -> None:
    async with run_server(drain=DrainOptions(notice_seconds=0.3, grace_seconds=60)) as serving:
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


async def test_a_drain_ends_after_its_grace() -> None:
    async with run_server(drain=DrainOptions(notice_seconds=0, grace_seconds=0.05)) as serving:
        call = asyncio.create_task(
            refused(serving.portraits.Generate(GenerateRequest(portrait=PortraitSpec(prompt="HOLD"))))
        )
        await serving.script.until(lambda: len(serving.script.held) == 1)
        await serving.app.drain()
        assert serving.lines("drain_incomplete")[0]["in_flight"] == 1
        await serving.app.stop(at_once=True)
        assert (await call).code == "UNAVAILABLE"


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
