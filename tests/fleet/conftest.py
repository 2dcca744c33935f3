"""The one fleet that all tests of this folder share."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from limner_client import ChannelSettings, Client, RetryPolicy

from tests.fleet.fleet import Fleet, Person
from tests.fleet.monitoring import prometheus
from tests.fleet.replica import Replica
from tests.needs import needing
from tests.server.imaging.pictures import file_of, scenery
from tests.server.shared.real_redis import RealRedis
from tests.tinymodels import build_tiny_model
from tests.waiting import until
from tools.deploy.paths import MissingError, command
from tools.local_envoy import envoy_command, local_envoy

REPLICAS = 3
PEOPLE_EACH = 8
MOST_PEOPLE = 120
LOGS = pytest.StashKey[list[Path]]()
TOLD_CHARACTERS = 3000

# One thread an engine and few buckets: three engines and their load share two cores in CI. The rest is as shipped, the
# times of the drain above all.
OPTIONS = ("--engine-backend", "torch", "--engine-threads", "1", "--engine-buckets", "1,2,4,8")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Show the end of each process' log below a test that failed."""
    report = yield
    if report.failed:  # type: ignore[attr-defined]
        for log in item.session.stash.get(LOGS, []):
            if log.exists():
                report.sections.append((f"end of {log}", log.read_text()[-TOLD_CHARACTERS:]))  # type: ignore[attr-defined]
    return report


@pytest.fixture(scope="package")
def fleet(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    with needing(MissingError):
        envoy_command()
        for tool in ("redis-server", "prometheus"):
            command(tool)
    folder = tmp_path_factory.mktemp("fleet")
    build_tiny_model(folder / "model")
    logs = request.session.stash[LOGS] = [
        folder / "redis.log",
        folder / "prometheus.log",
        folder / "envoy.log",
    ]
    with ExitStack() as stack:
        loop = stack.enter_context(asyncio.Runner())  # the one that the connection to Redis belongs to
        redis = RealRedis(folder)
        stack.callback(lambda: loop.run(redis.stop()))
        loop.run(redis.start())
        options = ("--model", str(folder / "model"), "--redis-url", redis.url, *OPTIONS)
        replicas = tuple(Replica(folder / f"replica-{n}", options) for n in range(REPLICAS))
        logs += [replica.log_file for replica in replicas]
        for replica in replicas:
            stack.callback(replica.close)
            replica.start()
        for replica in replicas:
            replica.until_ready()
        targets = [replica.target for replica in replicas]
        envoy = stack.enter_context(local_envoy(targets, log=folder / "envoy.log"))
        until(lambda: envoy.healthy() == set(targets), "Envoy leaves a replica out")
        watched = [replica.metrics_target for replica in replicas]
        watching = stack.enter_context(prometheus(watched, folder))
        yield Fleet(replicas=replicas, envoy=envoy, prometheus=watching)


@pytest.fixture(scope="package")
def client(fleet: Fleet) -> Iterator[Client]:
    """Call through Envoy as products do, with the retries of the client library."""
    with Client(fleet.envoy.target) as client:
        yield client


@pytest.fixture(scope="package")
def plain_client(fleet: Fleet) -> Iterator[Client]:
    """Call through Envoy without any retry on this side."""
    settings = ChannelSettings(options=(("grpc.enable_retries", 0),))
    with Client(fleet.envoy.target, retry=RetryPolicy(max_attempts=1), channel=settings) as client:
        yield client


@pytest.fixture(scope="package")
def people(fleet: Fleet, client: Client) -> Sequence[Person]:
    """Upload references; each replica is the home of as many, as it would be, nearly, of a large population.

    Callers give their pictures. A client sends the digest, and uploads again what is not found: Redis may take longer
    than it is given, above all on two cores that start engines.
    """
    found: list[Person] = []
    homes: Counter[str] = Counter()
    for number in range(MOST_PEOPLE):
        # After the end of a PNG: the same picture, another digest.
        picture = file_of(scenery(), "PNG") + number.to_bytes(2)
        digest = client.upload(picture).digest
        home = fleet.home(client.generate("a sailor", picture, steps=2, guidance_scale=1.0).request_id)
        homes[home.name] += 1
        if homes[home.name] <= PEOPLE_EACH:
            found.append(Person(digest=digest, picture=picture, home=home))
        if len(found) == REPLICAS * PEOPLE_EACH:
            return found
    pytest.fail(f"the ring is lopsided: {homes}")
