"""The shared store: whatever Redis does, nothing raises, nothing waits past the limit, nothing poisoned is used."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from server.references.cache import CacheEntry, CacheKey, entry_bytes
from server.references.shared.breaker import BreakerState
from server.references.shared.connection import FaultKind
from server.references.shared.observer import Lane, LookupOutcome, Operation, WriteOutcome
from server.references.shared.repairs import MAX_MENDS
from server.references.shared.store import Standing
from server.references.shared.writer import ATTEMPTS, UPLOAD_SECONDS
from tests.server.references.fakes import record
from tests.server.shared.fakes import FakeRedis, Shelf

SHAPE = (4, 8)
CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


def key(number: int = 0, tenant: str = "t", weights: str = "weights") -> CacheKey:
    return CacheKey(tenant, f"{number:064x}", "clip", weights)


def entry(key: CacheKey) -> CacheEntry:
    tokens = np.full(SHAPE, int(key.digest, 16) + 1, np.float32)
    return CacheEntry(tokens=tokens, record=record(key.digest))


async def store(shelf: Shelf, *keys: CacheKey) -> None:
    for each in keys:
        shelf.store.put(each, entry(each), is_upload=True)
    await shelf.store.writer.flush()


def hashes(redis: FakeRedis) -> list[dict[str, bytes]]:
    return [value for value in redis.data.values() if isinstance(value, dict)]


async def test_what_one_server_wrote_another_reads() -> None:
    async with Shelf() as one, Shelf(one.redis) as two:
        await store(one, key())
        got = await two.store.get(key(), SHAPE)
        assert got is not None
        assert got.tokens.tobytes() == entry(key()).tokens.tobytes()
        assert await two.store.record("t", key().digest) == record(key().digest)
        assert await two.store.standing(key()) is Standing.PRESENT
        for stranger in (key(1), key(tenant="u"), key(weights="other")):
            assert await two.store.get(stranger, SHAPE) is None
        assert two.told.lookups == {LookupOutcome.HIT: 1, LookupOutcome.MISS: 3}
        assert one.told.writes == {WriteOutcome.STORED: 1}


async def test_neither_tenants_nor_secrets_stand_in_keys() -> None:
    async with Shelf(prefix="fleet") as shelf:
        await store(shelf, key(tenant="ada@example.org"))
        (name,) = shelf.redis.data
        assert name.startswith("fleet:references:1:")
        assert "ada" not in name


# --- poisoned entries ---------------------------------------------------------------------------------------


def cut(value: bytes) -> Any:
    return value[:-1]


def flip(value: bytes) -> Any:
    return value[:60] + bytes([value[60] ^ 1]) + value[61:]


@pytest.mark.parametrize("spoil", [cut, flip, lambda _: b"", lambda _: b"x" * 3_000_000])
async def test_a_poisoned_entry_is_a_miss_and_is_counted_and_deleted(spoil: Any) -> None:
    async with Shelf() as shelf:
        await store(shelf, key())
        (fields,) = hashes(shelf.redis)
        for field, value in fields.items():
            fields[field] = spoil(value)
        assert await shelf.store.get(key(), SHAPE) is None
        assert await shelf.store.record("t", key().digest) is None
        assert shelf.told.lookups == {LookupOutcome.CORRUPT: 1}
        assert shelf.told.corrupted == 2
        await shelf.store.writer.flush()
        assert hashes(shelf.redis) == [{}]
        assert shelf.store.reads.breaker.state is CLOSED


async def test_an_entry_of_another_tenant_under_my_key_is_poison() -> None:
    async with Shelf() as shelf:
        await store(shelf, key(tenant="u"), key())
        theirs, mine = hashes(shelf.redis)
        mine.update(theirs)
        assert await shelf.store.get(key(), SHAPE) is None
        assert shelf.told.corrupted == 1


async def test_a_key_of_another_type_is_deleted_whole() -> None:
    async with Shelf() as shelf:
        await store(shelf, key())
        (name,) = shelf.redis.data
        for ask in (
            shelf.store.get(key(), SHAPE), shelf.store.standing(key()), shelf.store.record("t", key().digest),
        ):  # fmt: skip
            shelf.redis.data[name] = b"a string"
            assert await ask in (None, Standing.ABSENT)
            await shelf.store.writer.flush()
            assert name not in shelf.redis.data
        assert shelf.told.corrupted == 3


# --- a Redis that is away, slow, or talks nonsense ---------------------------------------------------------


@pytest.mark.parametrize("kind", FaultKind)
async def test_faults_are_misses_until_the_breaker_spares_them(kind: FaultKind) -> None:
    async with Shelf() as shelf:
        await store(shelf, key())
        shelf.redis.fault = kind
        for _ in range(5):
            assert await shelf.store.get(key(), SHAPE) is None
        assert shelf.told.faults == {(Operation.GET, kind): 3}
        assert shelf.told.lookups == {LookupOutcome.ERROR: 3, LookupOutcome.SKIPPED: 2}
        assert await shelf.store.standing(key()) is Standing.UNKNOWN
        assert await shelf.store.record("t", key().digest) is None
        shelf.redis.fault = None
        shelf.clock.now += 5
        assert await shelf.store.get(key(), SHAPE) is not None
        assert shelf.told.states[Lane.READ] == [CLOSED, OPEN, HALF_OPEN, CLOSED]


async def test_a_redis_that_never_answers_keeps_each_caller_for_its_limit_once() -> None:
    async with Shelf() as shelf:
        shelf.redis.hang = True
        async with asyncio.timeout(10):
            answers = await asyncio.gather(*(shelf.store.get(key(n), SHAPE) for n in range(200)))
            assert answers == [None] * 200
            assert shelf.store.reads.breaker.state is OPEN
            asked = shelf.redis.asked["HGET"]
            await asyncio.gather(*(shelf.store.get(key(n), SHAPE) for n in range(200)))
        assert shelf.redis.asked["HGET"] == asked
        assert set(shelf.told.faults) == {(Operation.GET, FaultKind.TIMEOUT)}


@pytest.mark.parametrize(
    "replies", [[b"a", b"b", b"c"], [1, 1, 1], [None, [b"x"], 0], [None] * 3, [True, 2.5, "a"]]
)
async def test_replies_of_other_kinds_are_never_tokens(replies: list[object]) -> None:
    async with Shelf() as shelf:
        shelf.redis.replies = replies
        assert await shelf.store.get(key(), SHAPE) is None
        assert await shelf.store.record("t", key().digest) is None
        assert await shelf.store.standing(key()) is Standing.UNKNOWN
        assert {kind for _, kind in shelf.told.faults} == {FaultKind.NONSENSE}
        assert shelf.store.reads.breaker.state is OPEN


async def test_a_forged_deletion_is_none() -> None:
    async with Shelf() as shelf:
        await store(shelf, key())
        (name,) = shelf.redis.data
        shelf.redis.data[f"{name}:deleted"] = b"1"
        assert await shelf.store.get(key(), SHAPE) is not None
        assert shelf.told.corrupted == 1
        await shelf.store.writer.flush()
        assert list(shelf.redis.data) == [name]


# --- writes -------------------------------------------------------------------------------------------------


async def test_writes_wait_for_a_redis_that_is_away_and_come_there_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Shelf() as shelf:

        async def later(seconds: float) -> None:
            shelf.clock.now += seconds
            shelf.redis.fault = None
            await asyncio.sleep(0)

        monkeypatch.setattr(shelf.store.writer, "_sleep", later)
        shelf.redis.fault = FaultKind.CONNECTION
        await store(shelf, *(key(n) for n in range(20)))
        assert len(shelf.redis.data) == 19
        assert shelf.told.writes == {WriteOutcome.STORED: 19, WriteOutcome.FAILED: 1}
        assert shelf.told.faults == {(Operation.PUT, FaultKind.CONNECTION): ATTEMPTS}
        assert shelf.told.waits == (0, 0)


async def test_what_waits_is_bounded_and_the_oldest_is_dropped() -> None:
    size = entry_bytes(key(), entry(key()))
    async with Shelf(write_queue_bytes=10 * size) as shelf:
        shelf.redis.hang = True
        for number in range(25):
            shelf.store.put(key(number), entry(key(number)), is_upload=True)
        assert shelf.told.writes == {WriteOutcome.DROPPED: 15}
        assert shelf.told.waits == (10 * size, 0)
        shelf.redis.hang = False
        await shelf.store.writer.flush()
        assert {f"{number:064x}" for number in range(15, 25)} == {name[-64:] for name in shelf.redis.data}


async def test_writing_the_same_again_replaces_what_waits() -> None:
    async with Shelf() as shelf:
        await store(shelf, *[key()] * 5)
        assert shelf.told.writes == {WriteOutcome.STORED: 1}


async def test_an_entry_that_is_too_large_is_not_written() -> None:
    async with Shelf(max_entry_bytes=1024) as shelf:
        large = replace(entry(key()), tokens=np.ones((64, 8), np.float32))
        shelf.store.put(key(), large, is_upload=True)
        await shelf.store.writer.flush()
        assert shelf.told.writes == {WriteOutcome.TOO_LARGE: 1}
        assert shelf.redis.data == {}


async def test_a_full_redis_is_still_read() -> None:
    async with Shelf() as shelf:
        await store(shelf, key())
        shelf.redis.full = True
        for number in range(1, 5):
            shelf.store.put(key(number), entry(key(number)), is_upload=True)
        while shelf.store.writes.breaker.state is not OPEN:  # noqa: ASYNC110 - counted in turns of the loop
            await asyncio.sleep(0)
        assert await shelf.store.get(key(), SHAPE) is not None
        assert shelf.told.states[Lane.READ] == [CLOSED]


async def test_closing_counts_what_was_not_written() -> None:
    shelf = Shelf()
    shelf.redis.hang = True
    shelf.store.put(key(), entry(key()), is_upload=True)
    await shelf.store.writer.close(0.01)
    await shelf.store.close()
    assert shelf.told.writes[WriteOutcome.DROPPED] == 1
    assert shelf.redis.closed


async def test_a_write_that_breaks_is_put_away_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Shelf() as shelf:
        commands = shelf.store._put_commands

        def broken(at: CacheKey, written: CacheEntry, is_upload: bool) -> Any:
            assert at != key(0), "as told"
            return commands(at, written, is_upload)

        monkeypatch.setattr(shelf.store.writer, "_commands", broken)
        monkeypatch.setattr(shelf.store.writer, "_sleep", lambda _: asyncio.sleep(0))
        async with asyncio.timeout(10):
            await store(shelf, key(0), key(1))
        assert shelf.told.writes == {WriteOutcome.FAILED: 1, WriteOutcome.STORED: 1}
        assert shelf.told.waits == (0, 0)


# --- deletions ----------------------------------------------------------------------------------------------


async def test_a_deletion_is_known_to_all_until_the_next_upload() -> None:
    async with Shelf() as one, Shelf(one.redis) as two:
        await store(one, key(), key(weights="other"))
        assert await two.store.delete("t", key().digest)
        assert await one.store.standing(key()) is Standing.DELETED
        assert await one.store.get(key(), SHAPE) is None
        assert not await two.store.delete("t", key().digest)
        # Another replica that still had it in memory does not bring it back.
        one.store.put(key(), entry(key()), is_upload=False)
        await one.store.writer.flush()
        assert await two.store.get(key(), SHAPE) is None
        assert await two.store.record("t", key().digest) is None
        await store(one, key())
        assert await two.store.get(key(), SHAPE) is not None
        assert await two.store.get(key(weights="other"), SHAPE) is None


async def test_an_upload_that_waited_long_does_not_undo_a_deletion_since() -> None:
    async with Shelf() as one, Shelf(one.redis) as two:
        one.store.put(key(), entry(key()), is_upload=True)
        one.clock.now += UPLOAD_SECONDS
        await two.store.delete("t", key().digest)
        await one.store.writer.flush()
        assert await two.store.get(key(), SHAPE) is None


@pytest.mark.parametrize("trouble", ["fault", "full", "hang"])
async def test_a_deletion_that_redis_does_not_hear_is_repeated_and_holds_here_at_once(
    trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Shelf() as shelf:
        await store(shelf, key())
        setattr(shelf.redis, trouble, FaultKind.CONNECTION if trouble == "fault" else True)
        assert await shelf.store.delete("t", key().digest)
        assert await shelf.store.get(key(), SHAPE) is None
        assert await shelf.store.record("t", key().digest) is None
        assert shelf.told.lookups == {LookupOutcome.SKIPPED: 1}
        setattr(shelf.redis, trouble, None if trouble == "fault" else False)
        await shelf.store.writer.flush()
        assert await shelf.store.standing(key()) is Standing.DELETED
        assert hashes(shelf.redis) == []
        await store(shelf, key())
        assert await shelf.store.get(key(), SHAPE) is not None


async def test_deleting_takes_back_what_waits_to_be_written() -> None:
    async with Shelf() as shelf:
        shelf.store.put(key(), entry(key()), is_upload=True)
        await shelf.store.delete("t", key().digest)
        await shelf.store.writer.flush()
        assert hashes(shelf.redis) == []


async def test_deleting_while_it_is_being_written_deletes_it_afterwards() -> None:
    async with Shelf() as shelf:
        shelf.store.put(key(), entry(key()), is_upload=True)
        while not shelf.redis.asked["HSET"]:  # noqa: ASYNC110 - counted in turns of the loop
            await asyncio.sleep(0)
        await shelf.store.delete("t", key().digest)
        await shelf.store.writer.flush()
        assert hashes(shelf.redis) == []
        assert await shelf.store.standing(key()) is Standing.DELETED


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a shelf's writer's waits pass at once."""

    def hurried(shelf: Shelf) -> None:
        async def sleep(seconds: float) -> None:
            shelf.clock.now += seconds
            await asyncio.sleep(0)

        monkeypatch.setattr(shelf.store.writer, "_sleep", sleep)

    return hurried


async def test_a_deletion_that_redis_never_takes_is_kept_and_holds_up_nothing_else(hurry: Any) -> None:
    async with Shelf() as shelf:
        hurry(shelf)
        await store(shelf, key())
        for name in list(shelf.redis.data):
            shelf.redis.refuses = name
        assert await shelf.store.delete("t", key().digest)
        # Neither before nor after the breaker has opened.
        for numbers in (range(1, 20), range(20, 40)):
            async with asyncio.timeout(10):
                for number in numbers:
                    shelf.store.put(key(number), entry(key(number)), is_upload=True)
                while shelf.told.writes[WriteOutcome.STORED] <= max(numbers):  # noqa: ASYNC110 - turns
                    await asyncio.sleep(0)
                while shelf.store.writes.breaker.state is not OPEN:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0)
        assert shelf.told.writes == {WriteOutcome.STORED: 40}
        assert await shelf.store.get(key(), SHAPE) is None
        # What is uploaded meanwhile waits for it, and is not deleted by it.
        shelf.store.put(key(), entry(key()), is_upload=True)
        shelf.redis.refuses = ""
        await shelf.store.writer.flush()
        assert await shelf.store.get(key(), SHAPE) is not None


async def test_a_spoilt_value_that_redis_does_not_let_go_is_given_up(hurry: Any) -> None:
    async with Shelf() as shelf:
        hurry(shelf)
        await store(shelf, key())
        (name,) = shelf.redis.data
        shelf.redis.data[name] = dict.fromkeys(shelf.redis.data[name], b"spoilt")
        assert await shelf.store.get(key(), SHAPE) is None
        shelf.redis.refuses = name
        async with asyncio.timeout(10):
            await shelf.store.writer.flush()
        assert shelf.told.faults == {(Operation.REPAIR, FaultKind.REFUSED): ATTEMPTS}
        assert shelf.told.waits == (0, 0)


async def test_spoilt_values_push_out_no_deletion() -> None:
    async with Shelf() as shelf:
        await store(shelf, key())
        shelf.redis.hang = True
        for number in range(10_000):
            shelf.store.writer.repair(f"x{number}", (("DEL", f"x{number}"),), seconds=60)
        await shelf.store.delete("t", key().digest)
        assert await shelf.store.get(key(), SHAPE) is None
        assert shelf.told.lookups == {LookupOutcome.SKIPPED: 1}
        assert shelf.told.waits == (0, MAX_MENDS + 1)
