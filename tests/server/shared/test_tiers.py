"""Two servers' libraries over one Redis: uploads and deletions of one are the other's."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from server.references.errors import ReferenceNotFound
from server.references.record import CacheOutcome
from server.references.shared.connection import FaultKind
from server.references.shared.observer import LookupOutcome, Operation
from server.references.tiers import SharedTier
from tests.server.references.fakes import Bench, picture
from tests.server.shared.fakes import FakeRedis, Shelf

BEHIND = (Operation.PUT, Operation.REPAIR)
RECHECK, TTL = 30.0, 3600.0
DIGEST = hashlib.sha256(picture()).hexdigest()


class Replica:
    """A server's library and its side of the shared tier, on one clock."""

    def __init__(self, shelf: Shelf, bench: Bench) -> None:
        self.shelf, self.bench, self.library = shelf, bench, bench.library

    async def upload(self) -> CacheOutcome:
        outcome = (await self.library.resolve("t", picture())).outcome
        await self.shelf.store.writer.flush()
        return outcome

    async def outcome(self) -> CacheOutcome:
        return (await self.library.lookup("t", DIGEST)).outcome


@asynccontextmanager
async def replica(redis: FakeRedis, **options: Any) -> AsyncIterator[Replica]:
    async with Shelf(redis, ttl_seconds=TTL, **options) as shelf:
        tier = SharedTier(store=shelf.store, recheck=RECHECK, ttl=TTL)
        async with Bench(shared=tier, clock=shelf.clock) as bench:
            yield Replica(shelf, bench)


async def test_a_digest_uploaded_to_one_works_on_the_other() -> None:
    redis = FakeRedis()
    async with replica(redis) as one, replica(redis) as two:
        uploaded = await one.library.resolve("t", picture())
        await one.shelf.store.writer.flush()
        found = await two.library.lookup("t", DIGEST)
        assert found.outcome is CacheOutcome.HIT
        assert found.tokens.tobytes() == uploaded.tokens.tobytes()
        assert found.record == uploaded.record == await two.library.get("t", DIGEST)
        assert two.bench.encoder.calls == 0
        asked = redis.asked["HGET"]
        assert await two.outcome() is CacheOutcome.HIT
        assert redis.asked["HGET"] == asked
        with pytest.raises(ReferenceNotFound):
            await two.library.lookup("u", DIGEST)
        with pytest.raises(ReferenceNotFound):
            await two.library.lookup("t", DIGEST, adapter="plus")


async def test_a_server_that_never_had_it_tells_of_it_and_deletes_it() -> None:
    redis = FakeRedis()
    async with replica(redis) as one, replica(redis) as two:
        await one.upload()
        assert (await two.library.get("t", DIGEST)).digest == DIGEST
        await two.library.delete("t", DIGEST)
        for call in (two.library.get, two.library.delete, two.library.lookup):
            with pytest.raises(ReferenceNotFound):
                await call("t", DIGEST)


async def test_a_deletion_elsewhere_is_heard_of_after_the_recheck_time() -> None:
    redis = FakeRedis()
    async with replica(redis) as one, replica(redis) as two:
        await one.upload()
        await two.library.delete("t", DIGEST)
        one.shelf.clock.now += RECHECK - 1
        assert await one.outcome() is CacheOutcome.HIT
        one.shelf.clock.now += 1
        with pytest.raises(ReferenceNotFound):
            await one.library.get("t", DIGEST)
        with pytest.raises(ReferenceNotFound):
            await one.library.lookup("t", DIGEST)
        assert len(one.bench.cache) == 0
        assert await one.upload() is CacheOutcome.MISS
        assert await two.outcome() is CacheOutcome.HIT


async def test_a_recheck_is_one_question_for_all_and_keeps_what_stands() -> None:
    redis = FakeRedis()
    async with replica(redis) as one:
        await one.upload()
        one.shelf.clock.now += RECHECK
        await asyncio.gather(*(one.outcome() for _ in range(64)))
        assert redis.asked["HEXISTS"] == 1
        assert await one.outcome() is CacheOutcome.HIT
        assert redis.asked["HEXISTS"] == 1


async def test_what_redis_lost_is_written_again() -> None:
    redis = FakeRedis()
    async with replica(redis) as one, replica(redis) as two:
        await one.upload()
        redis.data.clear()
        one.shelf.clock.now += RECHECK
        assert await one.outcome() is CacheOutcome.HIT
        await one.shelf.store.writer.flush()
        assert await two.outcome() is CacheOutcome.HIT


async def test_memory_serves_through_an_outage_until_deletions_may_be_forgotten() -> None:
    redis = FakeRedis()
    async with replica(redis) as one:
        await one.upload()
        redis.fault = FaultKind.CONNECTION
        for _ in range(100):
            one.shelf.clock.now += RECHECK
            assert await one.outcome() is CacheOutcome.HIT
        one.shelf.clock.now += TTL - 100 * RECHECK
        with pytest.raises(ReferenceNotFound):
            await one.library.lookup("t", DIGEST)
        assert (await one.library.resolve("t", picture())).outcome is CacheOutcome.MISS


async def test_concurrent_misses_ask_once_and_encode_once() -> None:
    async with replica(FakeRedis()) as one:
        results = await asyncio.gather(*(one.library.resolve("t", picture()) for _ in range(64)))
        outcomes = [result.outcome for result in results]
        assert outcomes.count(CacheOutcome.MISS) == 1
        assert set(outcomes) == {CacheOutcome.MISS, CacheOutcome.COALESCED}
        assert one.bench.encoder.calls == 1
        assert one.shelf.redis.asked["HGET"] == 1
        assert one.shelf.told.lookups == {LookupOutcome.MISS: 1}


async def test_a_request_asks_redis_once_whatever_becomes_of_it() -> None:
    """So one time limit is all that Redis can add."""
    redis = FakeRedis()
    async with replica(redis, breaker_failures=1000) as one:
        told = one.shelf.told
        for fault in (FaultKind.TIMEOUT, None):
            redis.fault = fault
            for call, operation in (
                (one.library.lookup("t", "0" * 64), Operation.GET),
                (one.library.resolve("t", picture(fault is None)), Operation.GET),
                (one.library.get("t", "1" * 64), Operation.RECORD),
                (one.library.delete("t", "2" * 64), Operation.DELETE),
            ):
                told.operations.clear()
                await asyncio.gather(call, return_exceptions=True)
                foreground = {key: n for key, n in told.operations.items() if key not in BEHIND}
                assert foreground == {operation: 1}


async def test_an_entry_that_is_poisoned_is_encoded_anew() -> None:
    redis = FakeRedis()
    async with replica(redis) as one, replica(redis) as two:
        good = await one.library.resolve("t", picture())
        await one.shelf.store.writer.flush()
        (fields,) = redis.data.values()
        for field, value in fields.items():
            fields[field] = value[:-100] + b"\0" * 100
        with pytest.raises(ReferenceNotFound):
            await two.library.lookup("t", DIGEST)
        again = await two.library.resolve("t", picture())
        assert (again.outcome, again.tokens.tobytes()) == (CacheOutcome.MISS, good.tokens.tobytes())
        assert two.shelf.told.lookups[LookupOutcome.CORRUPT] == 1


async def test_a_caller_that_leaves_does_not_take_the_question_with_it() -> None:
    redis = FakeRedis()
    async with replica(redis) as one, replica(redis) as two:
        await one.upload()
        call = asyncio.create_task(two.library.lookup("t", DIGEST))
        while redis.asked["HGET"] < 2:  # noqa: ASYNC110 - counted in turns of the loop
            await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await two.outcome() is CacheOutcome.HIT
        assert redis.asked["HGET"] == 2


async def test_deleting_while_redis_is_asked_keeps_nothing() -> None:
    redis = FakeRedis()
    async with replica(redis) as one, replica(redis) as two:
        await one.upload()
        lookup = asyncio.create_task(two.outcome())
        await asyncio.sleep(0)
        await two.library.delete("t", DIGEST)
        await asyncio.gather(lookup, return_exceptions=True)
        assert len(two.bench.cache) == 0
