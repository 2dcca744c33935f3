"""The library: hits, misses, single flight, and what happens when callers or the engine go away."""

from __future__ import annotations

import asyncio
import hashlib
import statistics
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from server.imaging.errors import ImagingOverloaded, InvalidImage
from server.references.errors import InvalidDigest, ReferenceEncodingFailed, ReferenceNotFound
from server.references.record import CacheOutcome, ReferenceWarningCode
from tests.server.references.fakes import FACTS, TOKENS, WIDTH, Bench, picture, picture_of


async def settle() -> None:
    """Let everything that can run on the loop run."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_miss_then_hits() -> None:
    async with Bench() as bench:
        image = picture()
        miss = await bench.library.resolve("t", image)
        hit = await bench.library.resolve("t", image)
        looked_up = await bench.library.lookup("t", miss.digest)
    assert miss.digest == hashlib.sha256(image).hexdigest()
    assert [r.outcome for r in (miss, hit, looked_up)] == [
        CacheOutcome.MISS,
        CacheOutcome.HIT,
        CacheOutcome.HIT,
    ]
    assert miss.decode_seconds > 0 == hit.decode_seconds
    assert miss.reference_seconds >= miss.decode_seconds
    assert hit.tokens is miss.tokens
    assert miss.tokens.shape == (TOKENS, WIDTH)
    assert miss.tokens.dtype == np.float32
    assert not miss.tokens.flags.writeable
    assert (miss.record.width, miss.record.size_bytes) == (64, len(image))
    assert bench.encoder.calls == 1
    assert bench.tally.outcomes == {CacheOutcome.MISS: 1, CacheOutcome.HIT: 2}
    assert bench.tally.stages == {"decode_input": 1, "encode_reference": 1}


async def test_concurrent_misses_make_one_encode() -> None:
    async with Bench() as bench:
        image = picture()
        first = await asyncio.gather(*(bench.library.resolve("t", image) for _ in range(64)))
        second = await asyncio.gather(*(bench.library.resolve("t", image) for _ in range(64)))
    assert bench.encoder.calls == 1
    assert bench.tally.stages["decode_input"] == 1
    outcomes = [r.outcome for r in first]
    assert outcomes.count(CacheOutcome.MISS) == 1
    assert outcomes.count(CacheOutcome.COALESCED) == 63
    assert {r.outcome for r in second} == {CacheOutcome.HIT}
    assert all(r.tokens is first[0].tokens for r in (*first, *second))


async def test_a_hit_is_ready_in_well_under_a_millisecond() -> None:
    async with Bench() as bench:
        image = picture(size=256)
        await bench.library.resolve("t", image)
        seconds = [(await bench.library.resolve("t", image)).reference_seconds for _ in range(501)]
    assert statistics.median(seconds) < 0.5e-3


async def test_each_adapter_encodes_for_itself_and_deleting_forgets_all() -> None:
    async with Bench() as bench:
        image = picture()
        first = await bench.library.resolve("t", image)
        with pytest.raises(ReferenceNotFound):
            await bench.library.lookup("t", first.digest, adapter="plus")
        other = await bench.library.resolve("t", image, adapter="plus")
        assert (other.digest, other.outcome) == (first.digest, CacheOutcome.MISS)
        found = await bench.library.lookup("t", first.digest, adapter="plus")
        assert found.tokens is other.tokens is not first.tokens
        assert bench.encoder.adapters == ["base", "plus"]
        await bench.library.delete("t", first.digest)
        for adapter in ("", "plus"):
            with pytest.raises(ReferenceNotFound):
                await bench.library.lookup("t", first.digest, adapter=adapter)


async def test_models_share_what_is_kept_but_not_what_is_in_flight() -> None:
    async with Bench() as bench:
        bench.encoder.gate.clear()
        image = picture()
        both = [
            asyncio.create_task(bench.library.resolve("t", image, model=model))
            for model in ("first", "other")
        ]
        while bench.encoder.calls < 2:
            await settle()
        bench.encoder.gate.set()
        first, other = await asyncio.gather(*both)
        assert [each.outcome for each in (first, other)] == [CacheOutcome.MISS] * 2
        assert sorted(bench.encoder.models) == ["first", "other"]
        assert (await bench.library.lookup("t", first.digest, model="third")).outcome is CacheOutcome.HIT
        assert len(bench.cache) == 1


async def test_deleting_keeps_no_models_encode_in_flight() -> None:
    async with Bench() as bench:
        bench.encoder.gate.clear()
        image = picture()
        both = [
            asyncio.create_task(bench.library.resolve("t", image, model=model))
            for model in ("first", "other")
        ]
        while bench.encoder.calls < 2:
            await settle()
        await bench.library.delete("t", hashlib.sha256(image).hexdigest())
        bench.encoder.gate.set()
        await asyncio.gather(*both)
        assert len(bench.cache) == 0


async def test_large_uploads_are_hashed_and_hit() -> None:
    async with Bench() as bench:
        image = picture() + b"\0" * 1_000_000  # PNG readers ignore what follows the end.
        miss = await bench.library.resolve("t", image)
        hit = await bench.library.resolve("t", image)
    assert miss.digest == hit.digest == hashlib.sha256(image).hexdigest()
    assert hit.outcome is CacheOutcome.HIT


async def test_tenants_share_nothing() -> None:
    async with Bench() as bench:
        mine = await bench.library.resolve("mine", picture())
        with pytest.raises(ReferenceNotFound):
            await bench.library.lookup("yours", mine.digest)
        with pytest.raises(ReferenceNotFound):
            await bench.library.get("yours", mine.digest)
        with pytest.raises(ReferenceNotFound):
            await bench.library.delete("yours", mine.digest)
        assert (await bench.library.resolve("yours", picture())).outcome is CacheOutcome.MISS


@pytest.mark.parametrize(
    "change",
    [{"weights_hash": "weights-2"}, {"preprocessing": FACTS.preprocessing.replace("bicubic", "bilinear")}],
)
async def test_another_encoder_means_another_embedding(change: dict[str, str]) -> None:
    async with Bench() as bench:
        old = await bench.library.resolve("t", picture())
        bench.encoder.current = replace(FACTS, **change)
        with pytest.raises(ReferenceNotFound):
            await bench.library.lookup("t", old.digest)
        assert (await bench.library.resolve("t", picture())).outcome is CacheOutcome.MISS
        await bench.library.delete("t", old.digest)
        assert len(bench.cache) == 0


# --- callers that go away -------------------------------------------------------------------------------------


async def test_a_cancelled_leader_does_not_cancel_followers() -> None:
    async with Bench() as bench:
        bench.encoder.gate.clear()
        leader = asyncio.create_task(bench.library.resolve("t", picture()))
        await settle()
        followers = [asyncio.create_task(bench.library.resolve("t", picture())) for _ in range(5)]
        await settle()
        leader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader
        bench.encoder.gate.set()
        results = await asyncio.gather(*followers)
    assert {r.outcome for r in results} == {CacheOutcome.COALESCED}
    assert bench.encoder.calls == 1


async def test_what_the_engine_has_is_kept_even_when_everyone_left() -> None:
    async with Bench() as bench:
        bench.encoder.gate.clear()
        call = asyncio.create_task(bench.library.resolve("t", picture()))
        await bench.encoder.entered.wait()
        call.cancel()
        await settle()
        bench.encoder.gate.set()
        await settle()
        assert (await bench.library.resolve("t", picture())).outcome is CacheOutcome.HIT


async def test_what_nobody_waits_for_never_reaches_the_engine() -> None:
    async with Bench() as bench:
        calls = [asyncio.create_task(bench.library.resolve("t", picture())) for _ in range(3)]
        await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await settle()
        assert bench.encoder.calls == 0
        assert (await bench.library.resolve("t", picture())).outcome is CacheOutcome.MISS
        assert bench.encoder.calls == 1


async def test_thousands_of_cancelled_calls_leave_nothing_behind() -> None:
    async with Bench() as bench:
        before, pictures = len(asyncio.all_tasks()), [picture(seed) for seed in range(7)]
        for number in range(2000):
            call = asyncio.create_task(bench.library.resolve("t", pictures[number % 7]))
            await asyncio.sleep(0)
            call.cancel()
        for _ in range(1000):
            await asyncio.sleep(0.001)
            if len(asyncio.all_tasks()) == before and not bench.pool.waiting:
                break
        assert len(asyncio.all_tasks()) == before
        assert len(bench.library._flights) == 0


# --- failures -------------------------------------------------------------------------------------------------


async def test_a_failed_encode_fails_all_who_waited_and_is_not_remembered() -> None:
    async with Bench() as bench:
        bench.encoder.failure = ReferenceEncodingFailed("no")
        results = await asyncio.gather(
            *(bench.library.resolve("t", picture()) for _ in range(8)), return_exceptions=True
        )
        assert all(isinstance(result, ReferenceEncodingFailed) for result in results)
        assert bench.encoder.calls == 1
        bench.encoder.failure = None
        assert (await bench.library.resolve("t", picture())).outcome is CacheOutcome.MISS


async def test_an_invalid_image_is_reported_about_each_callers_field() -> None:
    async with Bench() as bench:
        image = picture()[:-200]
        results = await asyncio.gather(
            bench.library.resolve("t", image),
            bench.library.resolve("t", image, field="image"),
            bench.library.lookup("t", hashlib.sha256(image).hexdigest()),
            return_exceptions=True,
        )
    one, two, three = results
    assert isinstance(one, InvalidImage)
    assert one.field == "portrait.reference_image"
    assert isinstance(two, InvalidImage)
    assert two.field == "image"
    assert isinstance(three, ReferenceNotFound)
    assert bench.encoder.calls == 0
    assert len(bench.cache) == 0


@pytest.mark.parametrize("image", [b"", b"\0" * 2_000_001])
async def test_bytes_are_checked_before_anything_else(image: bytes) -> None:
    async with Bench() as bench:
        bench.encoder.away = ConnectionError("no engine")
        with pytest.raises(InvalidImage):
            await bench.library.resolve("t", image)


@pytest.mark.parametrize(
    "answer",
    [np.full((TOKENS, WIDTH), np.nan, np.float32), np.zeros((TOKENS, WIDTH + 1), np.float32)],
)
async def test_a_wrong_embedding_is_never_kept(answer: np.ndarray) -> None:
    async with Bench() as bench:
        bench.encoder.answer = answer
        with pytest.raises(ReferenceEncodingFailed):
            await bench.library.resolve("t", picture())
        assert len(bench.cache) == 0


async def test_tokens_are_copied() -> None:
    async with Bench() as bench:
        bench.encoder.answer = np.ones((TOKENS, WIDTH), np.float32)
        resolved = await bench.library.resolve("t", picture())
        bench.encoder.answer[:] = 7
        assert (resolved.tokens == 1).all()


async def test_an_engine_that_is_away_is_the_callers_to_know() -> None:
    async with Bench() as bench:
        await bench.library.resolve("t", picture())
        digest = hashlib.sha256(picture()).hexdigest()
        bench.encoder.away = ConnectionError("no engine")
        for call in (bench.library.resolve("t", picture()), bench.library.lookup("t", digest)):
            with pytest.raises(ConnectionError):
                await call
        assert (await bench.library.get("t", digest)).digest == digest
        await bench.library.delete("t", digest)


async def test_too_many_pictures_are_refused() -> None:
    async with Bench(max_waiting=0) as bench:
        results = await asyncio.gather(
            *(bench.library.resolve("t", picture(n)) for n in range(12)), return_exceptions=True
        )
    refused = [r for r in results if isinstance(r, ImagingOverloaded)]
    assert 1 <= len(refused) == 12 - bench.encoder.calls


async def test_a_cache_too_small_for_an_entry_still_answers() -> None:
    async with Bench(capacity_bytes=100) as bench:
        assert (await bench.library.resolve("t", picture())).outcome is CacheOutcome.MISS
        assert (await bench.library.resolve("t", picture())).outcome is CacheOutcome.MISS


# --- delete ---------------------------------------------------------------------------------------------------


async def test_get_and_delete() -> None:
    async with Bench() as bench:
        resolved = await bench.library.resolve("t", picture())
        assert await bench.library.get("t", resolved.digest) == resolved.record
        await bench.library.delete("t", resolved.digest)
        for call in (bench.library.get, bench.library.delete, bench.library.lookup):
            with pytest.raises(ReferenceNotFound):
                await call("t", resolved.digest)
        assert (await bench.library.resolve("t", picture())).outcome is CacheOutcome.MISS


async def test_delete_in_flight_answers_but_keeps_nothing() -> None:
    async with Bench() as bench:
        digest = hashlib.sha256(picture()).hexdigest()
        bench.encoder.gate.clear()
        call = asyncio.create_task(bench.library.resolve("t", picture()))
        await bench.encoder.entered.wait()
        await bench.library.delete("t", digest)
        with pytest.raises(ReferenceNotFound):
            await bench.library.lookup("t", digest)
        bench.encoder.gate.set()
        assert (await call).outcome is CacheOutcome.MISS
        with pytest.raises(ReferenceNotFound):
            await bench.library.lookup("t", digest)


async def test_an_upload_after_delete_in_flight_is_kept() -> None:
    async with Bench() as bench:
        digest = hashlib.sha256(picture()).hexdigest()
        bench.encoder.gate.clear()
        old = asyncio.create_task(bench.library.resolve("t", picture()))
        await bench.encoder.entered.wait()
        await bench.library.delete("t", digest)
        new = asyncio.create_task(bench.library.resolve("t", picture()))
        await settle()
        old.cancel()  # The last waiter of the old flight leaves; the new one is another's.
        await settle()
        bench.encoder.gate.set()
        assert (await new).outcome is CacheOutcome.MISS
        assert (await bench.library.lookup("t", digest)).outcome is CacheOutcome.HIT


@pytest.mark.parametrize("digest", ["", "abc", "G" * 64, "AB" * 32, "ab" * 32 + "\n", "\u0430" * 64])
async def test_a_malformed_digest_is_named_as_such(digest: str) -> None:
    async with Bench() as bench:
        for call in (bench.library.lookup, bench.library.get, bench.library.delete):
            with pytest.raises(InvalidDigest) as caught:
                await call("t", digest)
            assert "64" in caught.value.limit


async def test_lookup_joins_an_encode_in_flight() -> None:
    async with Bench() as bench:
        bench.encoder.gate.clear()
        upload = asyncio.create_task(bench.library.resolve("t", picture()))
        await bench.encoder.entered.wait()
        lookup = asyncio.create_task(bench.library.lookup("t", hashlib.sha256(picture()).hexdigest()))
        await settle()
        bench.encoder.gate.set()
        assert (await lookup).outcome is CacheOutcome.COALESCED
        assert (await upload).outcome is CacheOutcome.MISS


async def test_a_strip_costs_no_more_than_it_holds() -> None:
    """Resizing its shorter side to the encoder's would give a picture of 32 by 2,000,000 pixels."""
    async with Bench() as bench:
        resolved = await bench.library.resolve("t", picture_of(Image.new("RGB", (16, 60_000), (90, 90, 90))))
    codes = {warning.code for warning in resolved.record.warnings}
    assert ReferenceWarningCode.EXTREME_ASPECT in codes
    assert resolved.decode_seconds < 5
