from __future__ import annotations

import asyncio
import gc
from enum import Enum
from sys import getsizeof

import numpy as np
from limner.v1.portrait_pb2 import PortraitSpec
from limner.v1.portrait_service_pb2 import GenerateRequest, GenerateStreamRequest
from PIL import Image

from server.config.options import IdempotencyOptions
from server.errors import DeadlinePassedError
from server.imaging.formats import PictureFormat
from server.portraits.idempotency import IdempotentGenerations, Key
from server.portraits.news import FinishedImage, News, Preview, Progress
from tests.server.answers import drained, refused
from tests.server.imaging.pictures import file_of
from tests.server.running import Serving, run_server, until, until_held


def request(prompt: str = "a sailor", key: str = "k", **fields: int) -> GenerateRequest:
    return GenerateRequest(portrait=PortraitSpec(prompt=prompt, **fields), idempotency_key=key)


async def test_a_second_call_gets_the_first_ones_result(serving: Serving) -> None:
    first = await serving.portraits.Generate(request())
    second = await serving.portraits.Generate(request())
    assert first == second
    assert len(serving.script.submitted) == 1
    assert [line["joined"] for line in serving.lines("call")] == [False, True]


async def test_a_call_joins_one_in_flight_also_across_the_two_methods(serving: Serving) -> None:
    unary = asyncio.create_task(_generate(serving, request("HOLD")))
    await serving.script.until(lambda: len(serving.script.held) == 1)
    streamed = serving.portraits.GenerateStream(
        GenerateStreamRequest(portrait=PortraitSpec(prompt="HOLD"), idempotency_key="k")
    )
    reading = asyncio.create_task(drained(streamed))
    await until(lambda: serving.app.gate.in_flight == 2)
    serving.script.release.set()
    news = await reading
    answer = await unary
    # The unary call asked for no progress.
    assert [message.WhichOneof("event") for message in news] == ["queued", "progress", "image", "completed"]
    assert {message.task_id for message in news} == {answer.task_id}
    assert news[-2].image == answer.images[0]
    assert len(serving.script.submitted) == 1


async def _generate(serving: Serving, message: GenerateRequest) -> object:
    return await serving.portraits.Generate(message)


async def test_the_same_key_with_another_portrait_is_refused(serving: Serving) -> None:
    await serving.portraits.Generate(request())
    told = await refused(serving.portraits.Generate(request("a baker")))
    assert (told.code, told.reason) == ("INVALID_ARGUMENT", "IDEMPOTENCY_CONFLICT")
    assert list(told.violations) == ["idempotency_key"]


async def test_keys_of_different_tenants_never_meet(serving: Serving) -> None:
    await serving.portraits.Generate(request())
    await serving.portraits.Generate(request("a baker"), metadata=(("x-limner-tenant", "acme"),))
    assert len(serving.script.submitted) == 2


async def test_a_failure_is_not_kept(serving: Serving) -> None:
    assert (await refused(serving.portraits.Generate(request("DIE")))).reason == "POISON"
    serving.script.die_on = "nothing"
    assert len((await serving.portraits.Generate(request("DIE"))).images) == 1


async def test_one_follower_leaves_and_the_other_gets_everything(serving: Serving) -> None:
    first = serving.portraits.Generate(request("HOLD"))
    await serving.script.until(lambda: len(serving.script.held) == 1)
    second = asyncio.create_task(_generate(serving, request("HOLD")))
    await until(lambda: serving.app.gate.in_flight == 2)
    first.cancel()
    await until(lambda: serving.app.gate.in_flight == 1)
    serving.script.release.set()
    await second
    assert serving.script.cancelled == []


async def test_when_the_last_follower_leaves_it_is_cancelled_and_the_key_is_free(serving: Serving) -> None:
    call = serving.portraits.Generate(request("HOLD"))
    await serving.script.until(lambda: len(serving.script.held) == 1)
    call.cancel()
    await serving.script.until(lambda: len(serving.script.cancelled) == 1)
    serving.script.release.set()
    assert len((await serving.portraits.Generate(request("HOLD"))).images) == 1
    assert len(serving.script.submitted) == 2


async def test_who_joined_outlives_the_first_callers_deadline(serving: Serving) -> None:
    impatient, _ = await until_held(
        serving, lambda timeout: serving.portraits.Generate(request("HOLD"), timeout=timeout)
    )
    patient = asyncio.create_task(_generate(serving, request("HOLD")))
    told = await refused(impatient)
    assert told.code == "DEADLINE_EXCEEDED"
    serving.script.release.set()
    await patient


async def test_results_expire_and_make_room() -> None:
    async with run_server(idempotency=IdempotencyOptions(ttl_seconds=0)) as serving:
        await serving.portraits.Generate(request())
        await serving.portraits.Generate(request())
        assert len(serving.script.submitted) == 2
    async with run_server(idempotency=IdempotencyOptions(max_bytes=0)) as serving:
        await serving.portraits.Generate(request())
        await serving.portraits.Generate(request())
        assert len(serving.script.submitted) == 2


def held(thing: object, seen: set[int]) -> int:
    """Count the bytes of what is reachable from a piece of news."""
    if id(thing) in seen or isinstance(thing, type | Enum):
        return 0
    seen.add(id(thing))
    return getsizeof(thing) + sum(held(part, seen) for part in gc.get_referents(thing))


async def test_what_is_kept_is_counted_and_holds_no_reference(serving: Serving) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (900, 900, 3), np.uint8)
    picture = file_of(Image.fromarray(noise), "PNG")
    assert len(picture) > 2_000_000
    spec = PortraitSpec(prompt="a sailor " * 20, reference_image=picture, steps=100, image_count=2)
    message = GenerateRequest(portrait=spec, idempotency_key="k")
    first = await serving.portraits.Generate(message)
    assert await serving.portraits.Generate(message) == first
    assert len(serving.script.submitted) == 1
    kept = serving.app.idempotency
    ((_, shared),) = kept._kept.values()
    assert len(shared.fingerprint) == 32
    assert held(shared._history, set()) <= kept.bytes_kept < 100_000
    other = PortraitSpec(prompt=spec.prompt, reference_image=picture + b"x", steps=100, image_count=2)
    told = await refused(serving.portraits.Generate(GenerateRequest(portrait=other, idempotency_key="k")))
    assert told.reason == "IDEMPOTENCY_CONFLICT"


def image(size: int) -> FinishedImage:
    return FinishedImage(index=0, seed=0, width=1, height=1, data=bytes(size), format=PictureFormat.PNG)


async def test_memory_is_bounded_and_time_is_a_clock() -> None:
    now = 0.0
    kept = IdempotentGenerations(ttl=10, max_bytes=30_000, clock=lambda: now)

    async def generation():  # type: ignore[no-untyped-def]
        yield Progress(step=1, steps=1)
        yield Preview(index=0, step=1, data=bytes(50_000), format=PictureFormat.PNG)
        yield image(6_000)

    for name in "abcd":
        shared = kept.start(Key("t", name), name, b"", generation())
        assert [type(news).__name__ for news in [item async for item in shared.follow()]][
            -1
        ] == "FinishedImage"
        await asyncio.sleep(0)
        now += 1
    assert kept.bytes_kept <= 30_000
    assert kept.find(Key("t", "a"), b"") is None
    found = kept.find(Key("t", "d"), b"")
    assert found is not None
    assert [type(item) for item in [item async for item in found.follow()]] == [Progress, FinishedImage]
    now += 8.5
    assert kept.find(Key("t", "b"), b"") is None
    assert kept.find(Key("t", "d"), b"") is not None
    now += 10
    assert kept.find(Key("t", "d"), b"") is None
    assert (len(kept), kept.bytes_kept) == (0, 0)


async def test_a_generation_that_nobody_followed_to_its_first_step_is_forgotten() -> None:
    kept = IdempotentGenerations(ttl=10, max_bytes=1_000_000)

    async def generation():  # type: ignore[no-untyped-def]
        await asyncio.Event().wait()
        yield image(1)

    shared = kept.start(Key("t", "k"), "a", b"", generation())

    async def follow() -> list[News]:
        return [item async for item in shared.follow()]

    task = asyncio.create_task(follow())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert kept.find(Key("t", "k"), b"") is None
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(kept) == 0


async def test_an_error_reaches_every_follower() -> None:
    kept = IdempotentGenerations(ttl=10, max_bytes=1_000_000)

    async def generation():  # type: ignore[no-untyped-def]
        yield image(1)
        raise DeadlinePassedError

    shared = kept.start(Key("t", "k"), "a", b"", generation())

    async def follow() -> str:
        try:
            return str([item async for item in shared.follow()])
        except DeadlinePassedError:
            return "told"

    assert await asyncio.gather(follow(), follow()) == ["told", "told"]
    assert len(kept) == 0
