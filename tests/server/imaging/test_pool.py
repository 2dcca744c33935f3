"""The pool: off the loop, bounded, and nothing left behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from server.imaging.errors import ImagingOverloaded
from server.imaging.pool import ImagingPool


class Gate:
    """Work that runs until it is let go."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)
        self.ran: list[int] = []

    def work(self, number: int) -> int:
        self.entered.release()
        self.open.wait(10)
        self.ran.append(number)
        return number

    async def until_entered(self) -> None:
        await asyncio.to_thread(self.entered.acquire, timeout=10)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


async def test_runs_in_a_thread_and_observes_the_wait() -> None:
    waits: list[float] = []
    ticks = iter([10.0, 12.5])
    pool = ImagingPool(workers=1, max_waiting=0, observe_wait=waits.append, clock=lambda: next(ticks))
    assert await pool.run(threading.current_thread) is not threading.current_thread()
    assert waits == [2.5]
    pool.close()


async def test_refuses_at_once_when_too_many_wait(gate: Gate) -> None:
    pool = ImagingPool(workers=1, max_waiting=2)
    calls = [asyncio.create_task(pool.run(gate.work, number)) for number in range(3)]
    await gate.until_entered()
    assert pool.waiting == 2
    with pytest.raises(ImagingOverloaded) as caught:
        await pool.run(gate.work, 3)
    assert caught.value.limit == 2
    gate.open.set()
    assert await asyncio.gather(*calls) == [0, 1, 2]
    assert await pool.run(gate.work, 4) == 4
    assert pool.waiting == 0
    pool.close()


async def test_cancelled_while_waiting_never_runs_and_frees_its_place(gate: Gate) -> None:
    pool = ImagingPool(workers=1, max_waiting=1)
    running = asyncio.create_task(pool.run(gate.work, 0))
    await gate.until_entered()
    waiting = asyncio.create_task(pool.run(gate.work, 1))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert pool.waiting == 0
    another = asyncio.create_task(pool.run(gate.work, 2))
    gate.open.set()
    assert await asyncio.gather(running, another) == [0, 2]
    assert gate.ran == [0, 2]
    pool.close()


async def test_cancelled_while_running_keeps_its_place_until_it_ends(gate: Gate) -> None:
    pool = ImagingPool(workers=1, max_waiting=0)
    running = asyncio.create_task(pool.run(gate.work, 0))
    await gate.until_entered()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    with pytest.raises(ImagingOverloaded):
        await pool.run(gate.work, 1)
    gate.open.set()
    for _ in range(1000):
        try:
            assert await pool.run(gate.work, 2) == 2
            break
        except ImagingOverloaded:
            await asyncio.sleep(0.001)
    pool.close()


async def test_raises_what_the_work_raises_and_goes_on() -> None:
    pool = ImagingPool(workers=1, max_waiting=0)
    with pytest.raises(ZeroDivisionError):
        await pool.run(lambda: 1 / 0)
    assert await pool.run(int, "7") == 7
    pool.close()


async def test_closed_refuses() -> None:
    pool = ImagingPool(workers=1, max_waiting=0)
    pool.close()
    with pytest.raises(RuntimeError):
        await pool.run(int)
    assert pool.waiting == 0
