"""Two servers share a real Redis that is stopped, paused, full, spoilt and replaced by a stranger, under load."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from limner.v1.portrait_pb2 import CACHE_OUTCOME_HIT, PortraitSpec
from limner.v1.portrait_service_pb2 import GenerateRequest
from limner.v1.reference_service_pb2 import (
    DeleteReferenceRequest,
    GetReferenceRequest,
    UploadReferenceRequest,
)
from PIL import Image
from redis.exceptions import ResponseError

from server.config.redis_options import RedisOptions
from server.references.digest import digest_of
from server.references.shared.breaker import BreakerState
from tests.server.answers import refused
from tests.server.imaging.pictures import file_of
from tests.server.running import Serving, run_server, until
from tests.server.shared.real_redis import RealRedis, babbler, real_redis

KNOWN = range(8)
"""Pictures that both servers have from the start."""
WORKERS = 12
REQUEST_OPERATIONS = ("get", "check", "record", "delete")
"""What requests wait for; the others happen behind them."""


def picture(number: int) -> bytes:
    """One plain colour, of which the fake engine makes tokens that are all ``number / 3``."""
    return file_of(Image.new("RGB", (32, 32), (number % 256, number // 256, 0)), "PNG")


def tokens_of(number: int) -> float:
    return (number % 256 + number // 256) / 3


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RealRedis]:
    async with real_redis(tmp_path) as running:
        yield running


@asynccontextmanager
async def pair(redis: RealRedis, **options: Any) -> AsyncIterator[tuple[Serving, Serving]]:
    shared = RedisOptions(url=redis.url, **{"recheck_seconds": 0.0, "breaker_open_seconds": 0.1, **options})
    async with run_server(redis=shared) as one, run_server(redis=shared) as two:
        yield one, two


def sample(serving: Serving, name: str, **labels: str) -> float:
    value = serving.app.metrics.registry.get_sample_value(name, labels)
    assert value is not None, (name, labels)
    return value


async def flush(serving: Serving) -> None:
    assert serving.app.shared is not None
    await serving.app.shared.store.writer.flush()


async def upload(serving: Serving, number: int) -> str:
    answer = await serving.references.UploadReference(UploadReferenceRequest(image=picture(number)))
    return str(answer.reference.digest)


class Load:
    """Callers of both servers that do what clients do: upload again when a digest is not found."""

    def __init__(self, servers: tuple[Serving, Serving]) -> None:
        self.servers = servers
        self.done = 0
        self.lookups = 0
        """References that were asked for, each of which may wait for Redis once."""
        self.failures: list[str] = []
        self._new = iter(range(len(KNOWN), 65536))
        self._ended = False

    async def caller(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self._ended:
            serving = chance.choice(self.servers)
            try:
                await chance.choice((self.known, self.known, self.fresh, self.told))(serving, chance)
            except grpc.aio.AioRpcError as error:
                self.failures.append(f"{error.code()}: {error.details()}")
            self.done += 1

    async def known(self, serving: Serving, chance: random.Random) -> None:
        number = chance.choice(KNOWN)
        await self.generate(serving, number, digest_of(picture(number)))

    async def fresh(self, serving: Serving, chance: random.Random) -> None:
        """Upload to one server and use it through the other."""
        number = next(self._new)
        self.lookups += 1
        digest = await upload(serving, number)
        await self.generate(chance.choice(self.servers), number, digest)

    async def told(self, serving: Serving, chance: random.Random) -> None:
        self.lookups += 1
        digest = digest_of(picture(chance.choice(KNOWN)))
        answer = await serving.references.GetReference(GetReferenceRequest(digest=digest))
        assert answer.reference.digest == digest

    async def generate(self, serving: Serving, number: int, digest: str) -> None:
        spec = PortraitSpec(prompt=str(number), reference_digest=digest)
        self.lookups += 1
        try:
            await serving.portraits.Generate(GenerateRequest(portrait=spec))
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND or number in KNOWN:
                raise
            self.lookups += 1
            spec = PortraitSpec(prompt=str(number), reference_image=picture(number))
            await serving.portraits.Generate(GenerateRequest(portrait=spec))

    async def more(self, count: int = 60) -> None:
        """Wait for so many calls to end."""
        goal = self.done + count
        await until(lambda: self.done >= goal)

    def end(self) -> None:
        self._ended = True


@asynccontextmanager
async def load(servers: tuple[Serving, Serving]) -> AsyncIterator[Load]:
    """Load both servers for as long as the block runs; afterwards nothing may have failed or been mistaken."""
    for serving in servers:
        for number in KNOWN:
            await upload(serving, number)
    it = Load(servers)
    it.lookups += len(servers) * len(KNOWN)
    async with asyncio.TaskGroup() as group:
        for seed in range(WORKERS):
            group.create_task(it.caller(seed))
        try:
            await it.more()
            yield it
        finally:
            it.end()
    assert it.failures == []
    used = [
        (int(submit.prompt), tokens)
        for serving in servers
        for submit, tokens in zip(serving.script.submitted, serving.script.tensors, strict=True)
    ]
    assert len(used) > WORKERS
    for number, tokens in used:
        assert tokens is not None
        assert np.allclose(tokens, tokens_of(number), rtol=1e-5, atol=0), number
    waits = [
        sample(serving, "limner_redis_seconds_count", operation=operation)
        for serving in servers
        for operation in REQUEST_OPERATIONS
    ]
    assert sum(waits) <= it.lookups, "some request waited for Redis more than once"


def opened(serving: Serving, lane: str) -> bool:
    return sample(serving, "limner_redis_breaker_opened_total", lane=lane) > 0


def closed(serving: Serving) -> bool:
    assert serving.app.shared is not None
    store = serving.app.shared.store
    return {store.reads.breaker.state, store.writes.breaker.state} == {BreakerState.CLOSED}


async def lives_through(
    redis: RealRedis, begin: Callable[[], Awaitable[None]], end: Callable[[], Awaitable[None]], *lanes: str
) -> None:
    """Make trouble under load until breakers open, end it, and wait until they close and the tier works again."""
    async with pair(redis) as servers:
        async with load(servers) as callers:
            await begin()
            await until(lambda: all(opened(serving, lane) for serving in servers for lane in lanes))
            await callers.more()
            await end()
            await until(lambda: all(closed(serving) for serving in servers))
            await callers.more()
        # Connections to the one that is gone still fail one by one, for which a breaker may open once more; and on
        # a busy machine a look-up takes longer than its 40 ms.
        for number in range(60_000, 60_100):
            if await is_shared(*servers, number):
                return
            await asyncio.sleep(0.1)
    raise AssertionError("what is uploaded to one server is not found by the other")


async def is_shared(one: Serving, two: Serving, number: int) -> bool:
    digest = await upload(one, number)
    await flush(one)
    spec = PortraitSpec(prompt=str(number), reference_digest=digest)
    try:
        answer = await two.portraits.Generate(GenerateRequest(portrait=spec))
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        return False
    return bool(answer.summary.reference.cache_outcome == CACHE_OUTCOME_HIT)


# --- trouble ------------------------------------------------------------------------------------------------


async def test_redis_that_is_killed_and_started_again(redis: RealRedis) -> None:
    await lives_through(redis, redis.stop, redis.start, "read", "write")


async def test_redis_that_stands_still(redis: RealRedis) -> None:
    async def freeze() -> None:
        redis.freeze(True)

    async def thaw() -> None:
        redis.freeze(False)

    await lives_through(redis, freeze, thaw, "read", "write")


async def test_redis_that_is_paused(redis: RealRedis) -> None:
    async def pause() -> None:
        await redis.admin.client_pause(1000)

    async def unpause() -> None:
        await until_answers(redis)

    await lives_through(redis, pause, unpause, "read")


async def until_answers(redis: RealRedis) -> None:
    while not await redis.answers():  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.01)


async def test_redis_that_is_full(redis: RealRedis) -> None:
    async def fill() -> None:
        await redis.admin.config_set("maxmemory-policy", "noeviction")
        await redis.admin.config_set("maxmemory", "1")

    async def empty() -> None:
        await redis.admin.config_set("maxmemory", "0")

    await lives_through(redis, fill, empty, "write")


@pytest.mark.parametrize(
    "babble",
    [
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
        bytes(range(256)) * 4,
        b"$99999999999\r\nabc",
        b":1\r\n" * 3,
        b"*2\r\n*2\r\n$1\r\na\r\n:7\r\n$-1\r\n" * 3,
        b"-LOADING Redis is loading the dataset in memory\r\n" * 3,
    ],
    ids=["http", "bytes", "endless", "numbers", "arrays", "loading"],
)
async def test_a_stranger_in_its_place(redis: RealRedis, babble: bytes) -> None:
    async with AsyncExitStack() as strangers:

        async def replace() -> None:
            await redis.stop()
            await strangers.enter_async_context(babbler(redis.port, babble))

        async def restore() -> None:
            await strangers.aclose()
            await redis.start()

        await lives_through(redis, replace, restore, "read")


async def test_poisoned_entries_under_load(redis: RealRedis) -> None:
    """Values that are cut, changed, foreign or of another type: counted, deleted, written anew, never used."""
    async with pair(redis) as servers, load(servers) as callers:
        chance = random.Random(7)
        for _ in range(4):
            hashes = await redis.hashes()
            foreign = [value for fields in hashes.values() for value in fields.values()]
            for name, fields in chance.sample(sorted(hashes.items()), k=min(20, len(hashes))):
                for field, value in fields.items():
                    spoilt = chance.choice(
                        (value[:-5], value[:80] + b"?" + value[81:], chance.choice(foreign), b"", b"x" * 3_000_000)
                    )  # fmt: skip
                    with contextlib.suppress(ResponseError):  # a server may have deleted or restored it
                        await redis.admin.hset(name, field, spoilt)
                if chance.random() < 0.2:
                    await redis.admin.set(name, b"not a hash")
                await redis.admin.set(name + b":deleted", b"1")
            await callers.more(30)
        assert sum(sample(serving, "limner_redis_corrupt_total") for serving in servers) > 0


# --- one fleet ----------------------------------------------------------------------------------------------


async def test_a_digest_uploaded_to_one_server_generates_on_the_other(redis: RealRedis) -> None:
    async with pair(redis, timeout_seconds=5.0) as (one, two):
        digest = await upload(one, 42)
        await flush(one)
        spec = PortraitSpec(prompt="42", reference_digest=digest)
        answer = await two.portraits.Generate(GenerateRequest(portrait=spec))
        assert answer.summary.reference.cache_outcome == CACHE_OUTCOME_HIT
        assert two.script.encoded == 0
        (tokens,) = two.script.tensors
        assert tokens is not None
        assert np.allclose(tokens, tokens_of(42))
        record = await two.references.GetReference(GetReferenceRequest(digest=digest))
        assert record.reference.width == 32
        assert sample(two, "limner_reference_tier_lookups_total", tier="redis", outcome="hit") == 1

        await two.references.DeleteReference(DeleteReferenceRequest(digest=digest))
        for call, request in (
            (one.references.GetReference, GetReferenceRequest(digest=digest)),
            (one.portraits.Generate, GenerateRequest(portrait=spec)),
            (one.references.DeleteReference, DeleteReferenceRequest(digest=digest)),
        ):
            assert (await refused(call(request))).code == "NOT_FOUND"


async def test_entries_expire_and_using_them_puts_that_off(redis: RealRedis) -> None:
    async with pair(redis, ttl_seconds=100.0, timeout_seconds=5.0) as (one, two):
        digest = await upload(one, 1)
        await flush(one)
        (name,) = await redis.hashes()
        assert 90_000 < await redis.admin.pttl(name) <= 100_000
        await redis.admin.pexpire(name, 5_000)
        await two.references.GetReference(GetReferenceRequest(digest=digest))
        assert await redis.admin.pttl(name) > 90_000
        await one.references.DeleteReference(DeleteReferenceRequest(digest=digest))
        assert await redis.admin.pttl(name + b":deleted") > 100_000


async def test_a_password_that_is_needed_stands_in_a_file_and_in_no_log(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("open sesame\n")
    seal = tmp_path / "seal"
    seal.write_bytes(b"0123456789abcdef\n")
    async with real_redis(tmp_path, password="open sesame") as redis:
        async with pair(redis, password_file=str(secret), seal_key_file=str(seal), timeout_seconds=5.0) as (
            one,
            two,
        ):
            digest = await upload(one, 5)
            await flush(one)
            await two.references.GetReference(GetReferenceRequest(digest=digest))
            assert one.lines("references_shared")[0]["redis"] == redis.url
            assert "sesame" not in str(one.logs)
        async with pair(redis, password="wrong", breaker_failures=1, timeout_seconds=5.0) as (one, two):
            await upload(one, 5)
            assert "sesame" not in str(one.logs)
            assert (
                sample(one, "limner_redis_faults_total", operation="get", kind="connection")
                + sample(one, "limner_redis_faults_total", operation="get", kind="refused")
                == 1
            )


async def test_a_server_without_the_seal_key_uses_nothing_of_those_that_have_it(
    redis: RealRedis, tmp_path: Path
) -> None:
    seal = tmp_path / "seal"
    seal.write_bytes(b"0123456789abcdef")
    async with pair(redis, seal_key_file=str(seal), timeout_seconds=5.0) as (one, _):
        digest = await upload(one, 9)
        await flush(one)
        async with pair(redis, timeout_seconds=5.0) as (stranger, _):
            asked = stranger.references.GetReference(GetReferenceRequest(digest=digest))
            assert (await refused(asked)).code == "NOT_FOUND"
            assert sample(stranger, "limner_redis_corrupt_total") == 1
