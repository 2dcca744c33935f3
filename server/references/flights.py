"""Single flight: of concurrent misses on one key, one does the work and all have its result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Flight(Generic[T]):
    """Work in progress that several calls wait for.

    Attributes:
        task: runs the work, apart from every caller's own task: cancelling one caller does not reach others.
        waiters: calls that wait for it.
        committed: set by the work once giving it up would save nothing.
        wanted: cleared when its result must not be kept.
    """

    __slots__ = ("committed", "task", "waiters", "wanted")

    task: asyncio.Task[T]

    def __init__(self) -> None:
        self.waiters = 0
        self.committed = False
        self.wanted = True


class Flights(Generic[K, T]):
    """The flights by key. Belongs to one event loop."""

    def __init__(self) -> None:
        self._flights: dict[K, Flight[T]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def get(self, key: K) -> Flight[T] | None:
        """Return the flight that a call for ``key`` may join, or None."""
        flight = self._flights.get(key)
        return None if flight is None or flight.task.done() else flight

    def launch(self, key: K, work: Callable[[Flight[T]], Coroutine[Any, Any, T]]) -> Flight[T]:
        """Start ``work``, which is given its flight; ``join`` must follow without an ``await`` between."""
        flight: Flight[T] = Flight()
        flight.task = asyncio.create_task(work(flight))
        self._flights[key] = flight
        flight.task.add_done_callback(lambda task: self._land(key, flight, task))
        return flight

    async def join(self, key: K, flight: Flight[T]) -> T:
        """Wait for the flight's result. Raises what the work raised.

        When its last waiter goes away before the work has committed itself, the work is cancelled.
        """
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiters -= 1
            if not flight.waiters and not flight.committed and not flight.task.done():
                if self._flights.get(key) is flight:
                    self.release(key)
                flight.task.cancel()

    def release(self, key: K) -> bool:
        """Let the flight end for those who wait, unwanted and open to no further call.

        False when there is none.
        """
        flight = self._flights.pop(key, None)
        if flight is None or flight.task.done():
            return False
        flight.wanted = False
        return True

    async def close(self) -> None:
        """Cancel all work, and wait for its end."""
        tasks = [flight.task for flight in self._flights.values()]
        self._flights.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _land(self, key: K, flight: Flight[T], task: asyncio.Task[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        if not task.cancelled():
            task.exception()  # Retrieved here, in case that everyone who waited is gone.
