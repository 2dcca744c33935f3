from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha import reflection_pb2
from limner.v1.portrait_pb2 import PortraitSpec
from limner.v1.portrait_service_pb2 import GenerateRequest

from server.api.call_metrics import GENERATIONS
from server.api.services import PROBES, rpc_types, served
from server.config.listen_options import ListenOptions
from tests.server.fake_engine import Script
from tests.server.running import Serving, run_server, until_ready

SERVICE_NAMES = tuple(service.full_name for service in served(kserve=False))
SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


async def check(serving: Serving, name: str) -> Any:
    return (await serving.health.Check(HealthCheckRequest(service=name))).status


async def test_liveness_serves_before_the_engine_is_there_and_readiness_does_not() -> None:
    async with run_server(Script(loads=False), wait=False) as serving:
        assert await check(serving, "liveness") == SERVING
        for name in ("readiness", "", *SERVICE_NAMES):
            assert await check(serving, name) == NOT_SERVING
        serving.script.loads = True
        await until_ready(serving)
        for name in ("liveness", "readiness", "", *SERVICE_NAMES):
            assert await check(serving, name) == SERVING


async def test_names_that_are_not_known(serving: Serving) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await check(serving, "paintings")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    watch = serving.health.Watch(HealthCheckRequest(service="paintings"))
    assert (await watch.read()).status == HealthCheckResponse.SERVICE_UNKNOWN


async def test_watches_follow_readiness_and_one_that_leaves_takes_nobody_with_it(serving: Serving) -> None:
    leaving, staying = (serving.health.Watch(HealthCheckRequest(service="readiness")) for _ in range(2))
    assert [(await watch.read()).status for watch in (leaving, staying)] == [SERVING, SERVING]
    leaving.cancel()
    serving.script.loads = False
    serving.launcher.engines[0].kill()
    assert (await staying.read()).status == NOT_SERVING
    assert await check(serving, "liveness") == SERVING
    serving.script.loads = True
    assert (await staying.read()).status == SERVING


async def test_a_watch_ends_when_the_server_stops() -> None:
    async with run_server() as serving:
        watch = serving.health.Watch(HealthCheckRequest(service="liveness"))
        assert (await watch.read()).status == SERVING
        reading = asyncio.create_task(watch.read())
        async with asyncio.timeout(20):
            await serving.app.stop()
        assert await reading is grpc.aio.EOF


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_describes_every_service(serving: Serving, version: str) -> None:
    ask = serving.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    call = ask()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    services = {service.name for service in (await call.read()).list_services_response.service}
    assert services >= {*SERVICE_NAMES, "grpc.health.v1.Health"}
    for name in services:
        await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=name))
        answer = await call.read()
        files = [
            descriptor_pb2.FileDescriptorProto.FromString(data)
            for data in answer.file_descriptor_response.file_descriptor_proto
        ]
        assert any(name == f"{file.package}.{service.name}" for file in files for service in file.service), (
            name
        )
    await call.done_writing()


def test_methods_that_are_named_in_the_code_are_served() -> None:
    services = served(kserve=True)
    methods = {f"/{service.full_name}/{method.name}" for service in services for method in service.methods}
    assert methods > PROBES
    assert rpc_types(services).keys() == methods - PROBES
    assert rpc_types(services).keys() > GENERATIONS


async def test_an_old_connection_is_replaced_and_its_calls_end_well() -> None:
    listen = ListenOptions(port=0, metrics_port=-1, max_connection_age_seconds=0.2)
    async with run_server(listen=listen) as serving:
        call = serving.portraits.Generate(GenerateRequest(portrait=PortraitSpec(prompt="HOLD a sailor")))
        await serving.script.until(lambda: bool(serving.script.held))
        async with asyncio.timeout(20):
            while serving.channel.get_state() is grpc.ChannelConnectivity.READY:
                await serving.channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
        serving.script.release.set()
        assert len((await call).images) == 1
        assert await check(serving, "readiness") == SERVING
