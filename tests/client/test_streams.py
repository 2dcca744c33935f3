"""Streams that break are taken up again; calls that are given up stop on the server."""

import asyncio
import threading

import grpc
import pytest
from limner_client import AsyncClient, Cancelled, Client, Completed, DeadlineExceeded, ImageReady, Unavailable
from limner_client.aio import wait_for_event

from tests.client.fakes import Refusal


def test_a_broken_stream_is_taken_up_again_and_each_image_comes_once(call, fake, time):
    # queued, 2 steps, image 0, then the connection is lost before image 1
    fake.breaks_after.append(4)
    events = call("stream", "a sailor", steps=2, image_count=2, seed=3)
    assert [event.image.index for event in events if isinstance(event, ImageReady)] == [0, 1]
    assert isinstance(events[-1], Completed)
    assert [image.index for image in events[-1].portrait.images] == [0, 1]
    first, second = fake.named("GenerateStream")
    assert first == second
    assert len(time.waits) == 1


def test_a_stream_that_keeps_breaking_fails(call, fake):
    fake.breaks_after.extend([1] * 10)
    with pytest.raises(Unavailable):
        call("stream", "a sailor")
    assert len(fake.named("GenerateStream")) == 6


@pytest.mark.parametrize("method", ["generate", "stream"])
def test_the_deadline_reaches_the_server(call, fake, method):
    fake.hangs = True
    with pytest.raises(DeadlineExceeded):
        call(method, "a sailor", timeout=0.2)
    assert fake.cancelled.wait(5)


def test_leaving_the_block_cancels(target, fake):
    with Client(target) as client:
        with client.stream("a sailor", steps=50) as news:
            next(news)
        with pytest.raises(StopIteration):
            next(news)


def test_cancel_from_another_thread(target, fake):
    fake.hangs = True
    with Client(target) as client:
        news = client.stream("a sailor")
        threading.Timer(0.2, news.cancel).start()
        with pytest.raises(Cancelled):
            next(news)
        assert fake.cancelled.wait(5)
        never_started = client.stream("a sailor")
        never_started.cancel()
        with pytest.raises(Cancelled):
            next(never_started)


def test_closing_the_client_ends_its_calls(target, fake):
    fake.hangs = True
    client = Client(target)
    threading.Timer(0.2, client.close).start()
    with pytest.raises(Cancelled):
        client.generate("a sailor")
    with pytest.raises(Cancelled):
        client.info()


async def test_cancelling_a_task_cancels_its_call(target, fake):
    fake.hangs = True
    async with AsyncClient(target) as client:
        task = asyncio.create_task(client.generate("a sailor"))
        await asyncio.to_thread(fake.started.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(fake.cancelled.wait, 5)


async def test_cancelling_an_async_stream(target, fake):
    fake.hangs = True
    async with AsyncClient(target) as client:
        async with client.stream("a sailor") as news:
            asyncio.get_running_loop().call_later(0.2, news.cancel)
            with pytest.raises(Cancelled):
                await anext(news)
        assert await asyncio.to_thread(fake.cancelled.wait, 5)
    with pytest.raises(Cancelled):
        await client.info()


async def test_cancelling_an_async_stream_ends_its_wait_for_a_retry(target, fake):
    fake.refusals.append(Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after=60))
    waiting = asyncio.Event()

    async def wait(event: asyncio.Event, seconds: float) -> None:
        waiting.set()
        await wait_for_event(event, seconds)

    async with AsyncClient(target) as client:
        client._wait = wait
        news = client.stream("a sailor")
        task = asyncio.create_task(anext(news))
        await waiting.wait()
        news.cancel()
        async with asyncio.timeout(5):
            with pytest.raises(Cancelled):
                await task
    assert len(fake.calls) == 1


async def test_a_wait_without_a_cancellation_lasts_as_long_as_asked():
    loop = asyncio.get_running_loop()
    start = loop.time()
    await wait_for_event(asyncio.Event(), 0.02)
    assert loop.time() - start >= 0.02


def test_one_client_serves_many_threads(target, fake):
    with Client(target) as client:
        results = []
        threads = [
            threading.Thread(target=lambda: results.append(client.generate("a sailor", b"picture")))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results) == 8


async def test_many_tasks_share_one_async_client(target, fake):
    async with AsyncClient(target) as client:
        portraits = await asyncio.gather(*(client.generate("a sailor", b"picture") for _ in range(8)))
    assert len({portrait.request_id for portrait in portraits}) == 8
