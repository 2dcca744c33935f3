"""How many calls are in flight, and whether new ones are taken."""

from __future__ import annotations

import asyncio
from typing import Any

from server.errors import DrainingError


class Gate:
    """Counts the calls in flight, and refuses new ones once it is closed."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ended: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._ending = False
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def in_flight(self) -> int:
        """Calls that have begun and not ended."""
        return len(self._tasks)

    @property
    def is_closed(self) -> bool:
        """Whether new calls are refused."""
        return self._closed

    def close(self) -> None:
        """Refuse new calls from here on."""
        self._closed = True

    def check(self) -> None:
        """Raise ``DrainingError`` when it is closed."""
        if self._closed:
            raise DrainingError

    @property
    def is_ending(self) -> bool:
        """Whether the calls in flight were ended."""
        return self._ending

    def end_all(self) -> None:
        """Close, and end the calls in flight; each hears ``asyncio.CancelledError`` and finds that it ``was_ended``."""
        self._closed = self._ending = True
        for task in self._tasks - self._ended:
            self._ended.add(task)
            task.cancel()

    def was_ended(self) -> bool:
        """Whether the call of this task was ended here, and not by its caller."""
        return asyncio.current_task() in self._ended

    def enter(self) -> None:
        """Count the call of this task in."""
        self._tasks.add(_this_task())
        self._empty.clear()

    def leave(self) -> None:
        """Count it out."""
        task = _this_task()
        self._tasks.discard(task)
        self._ended.discard(task)
        if not self._tasks:
            self._empty.set()

    async def wait_until_empty(self) -> None:
        """Wait until no call is in flight."""
        await self._empty.wait()


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None, "gRPC runs each handler in a task"
    return task
