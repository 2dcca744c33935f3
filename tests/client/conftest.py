"""A fake server, and both clients with a clock that only their own waits move."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random

import pytest
from limner_client import AsyncClient, Client

from tests.client.fakes import FakeLimner, serve


@dataclass
class FakeTime:
    """A clock that stands still but for the waits, which it remembers."""

    now: float = 1000.0
    waits: list[float] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def wait(self, _cancelled: threading.Event, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    async def wait_async(self, _cancelled: asyncio.Event, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def fake() -> FakeLimner:
    return FakeLimner()


@pytest.fixture
def target(fake: FakeLimner) -> Iterator[str]:
    server, address = serve(fake)
    yield address
    server.stop(None).wait()


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def client(target: str, time: FakeTime) -> Iterator[Client]:
    with Client(target, tenant="acme") as client:
        client._session = replace(client._session, clock=time.clock, random=Random(7))
        client._wait = time.wait
        yield client


@pytest.fixture(params=["threads", "asyncio"])
def call(request: pytest.FixtureRequest, target: str, time: FakeTime):  # type: ignore[no-untyped-def]
    """Call a method of either client by name, so that each test of the logic holds for both."""
    if request.param == "threads":
        with Client(target, tenant="acme") as client:
            client._session = replace(client._session, clock=time.clock, random=Random(7))
            client._wait = time.wait

            def plain(name: str, *args: object, **kwargs: object) -> object:
                result = getattr(client, name)(*args, **kwargs)
                return list(result) if name == "stream" else result

            yield plain
        return
    with asyncio.Runner() as runner:
        a_client = AsyncClient(target, tenant="acme")
        a_client._session = replace(a_client._session, clock=time.clock, random=Random(7))
        a_client._wait = time.wait_async

        async def awaited(name: str, *args: object, **kwargs: object) -> object:
            result = getattr(a_client, name)(*args, **kwargs)
            return [event async for event in result] if name == "stream" else await result

        yield lambda name, *args, **kwargs: runner.run(awaited(name, *args, **kwargs))
        runner.run(a_client.close())
