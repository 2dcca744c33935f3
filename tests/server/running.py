"""A whole server in the test's event loop, on a free port, with a fake engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from limner.v1 import model_service_pb2_grpc, portrait_service_pb2_grpc, reference_service_pb2_grpc

from server.app import App
from server.config import Config
from server.config.engine_options import EngineOptions
from server.config.listen_options import ListenOptions
from server.config.options import DrainOptions
from tests.server.fake_engine import FakeLauncher, Script


@dataclass
class Serving:
    """A running server with fake engines, and stubs for it."""

    app: App
    launchers: list[FakeLauncher]
    channel: grpc.aio.Channel
    logs: list[dict[str, Any]]

    @property
    def launcher(self) -> FakeLauncher:
        """Starts the default model's engines."""
        return self.launchers[0]

    @property
    def script(self) -> Script:
        """The default model's."""
        return self.launcher.script

    @property
    def portraits(self) -> portrait_service_pb2_grpc.PortraitServiceStub:
        return portrait_service_pb2_grpc.PortraitServiceStub(self.channel)

    @property
    def references(self) -> reference_service_pb2_grpc.ReferenceServiceStub:
        return reference_service_pb2_grpc.ReferenceServiceStub(self.channel)

    @property
    def models(self) -> model_service_pb2_grpc.ModelServiceStub:
        return model_service_pb2_grpc.ModelServiceStub(self.channel)

    @property
    def health(self) -> health_pb2_grpc.HealthStub:
        return health_pb2_grpc.HealthStub(self.channel)

    def lines(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.logs if line["event"] == event]


def quick_config(**changes: Any) -> Config:
    """A configuration for tests: free ports, short waits."""
    sections: dict[str, Any] = {
        "listen": ListenOptions(port=0, metrics_port=-1),
        "engine": EngineOptions(restart_delay_seconds=0.001, restart_delay_max_seconds=0.01),
        "drain": DrainOptions(notice_seconds=0.01, grace_seconds=10),
    }
    return Config(**(sections | changes))


@asynccontextmanager
async def run_server(
    script: Script | None = None,
    *more: Script,
    wait: bool = True,
    credentials: grpc.ChannelCredentials | None = None,
    **changes: Any,
) -> AsyncIterator[Serving]:
    """Serve with the engines of ``script``, and of ``more`` where ``engine.models`` names further models.

    ``credentials`` are the client's, where the server has TLS.
    """
    scripts = (script or Script(), *more)
    logs: list[dict[str, Any]] = []

    def keep(_: Any, level: str, event: dict[str, Any]) -> str:
        logs.append(dict(event, level=level))
        raise structlog.DropEvent

    log = structlog.wrap_logger(
        None, processors=[keep], wrapper_class=structlog.make_filtering_bound_logger(0)
    )
    launchers = [FakeLauncher(each) for each in scripts]
    app = App(quick_config(**changes), launchers, log)
    await app.start()
    async with (
        grpc.aio.insecure_channel(app.addresses[0])
        if credentials is None
        else grpc.aio.secure_channel(app.addresses[0], credentials)
    ) as channel:
        serving = Serving(app=app, launchers=launchers, channel=channel, logs=logs)
        try:
            if wait:
                await until_ready(serving)
            yield serving
        finally:
            await app.stop(at_once=True)


async def until_ready(serving: Serving) -> None:
    async for answer in serving.health.Watch(HealthCheckRequest(service="readiness")):
        if answer.status == HealthCheckResponse.SERVING:
            return


async def until_held(serving: Serving, begin: Callable[[float], Any]) -> tuple[Any, float]:
    """Begin a call that the engine holds, with a timeout that is just long enough for it to get there on this machine.

    Returns the call and its timeout.
    """
    timeout = 0.5
    while True:
        before = len(serving.script.held)
        call = begin(timeout)
        held = asyncio.create_task(
            serving.script.until(lambda before=before: len(serving.script.held) > before)
        )
        gone = asyncio.create_task(call.code())
        await asyncio.wait([held, gone], return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if held.done():
            return call, timeout
        held.cancel()
        timeout *= 4


async def until(condition: Callable[[], object]) -> None:
    """Wait for what nothing tells of; the test's timeout says when it never comes."""
    while not condition():  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0.001)
