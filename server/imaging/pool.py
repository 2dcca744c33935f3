"""A bounded pool of threads for pictures, so that no pixel is touched on the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import ParamSpec, TypeVar

from server.imaging.errors import ImagingOverloaded

P = ParamSpec("P")
T = TypeVar("T")


class ImagingPool:
    """Runs picture work in ``workers`` threads; at most ``max_waiting`` calls wait for one.

    ``observe_wait`` is told each call's wait in seconds, from the pool's threads. Pillow, zlib, libjpeg and
    libwebp release the GIL while they work.
    """

    def __init__(
        self,
        *,
        workers: int,
        max_waiting: int,
        observe_wait: Callable[[float], None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if workers < 1 or max_waiting < 0:
            raise ValueError("a pool has at least one worker and no negative number of waiting calls")
        self._executor = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="limner-imaging")
        self._workers = workers
        self._max_waiting = max_waiting
        self._observe_wait = observe_wait
        self._clock = clock
        self._held = 0
        """Calls that wait or run, changed by the event loop and by the threads."""
        self._lock = Lock()

    @property
    def waiting(self) -> int:
        """Calls that wait for a thread."""
        return max(0, self._held - self._workers)

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``function`` in a thread.

        Raises ``ImagingOverloaded`` at once when too many wait, and what ``function`` raises. Cancelled while
        waiting, the call never runs; cancelled while running, its result is dropped.
        """
        with self._lock:
            if self._held >= self._workers + self._max_waiting:
                raise ImagingOverloaded(self._max_waiting)
            self._held += 1
        try:
            future = self._executor.submit(self._work, self._clock(), partial(function, *args, **kwargs))
        except BaseException:
            self._release()
            raise
        future.add_done_callback(self._release)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Refuse new calls, drop the waiting ones and let the running ones end."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _work(self, submitted: float, call: Callable[[], T]) -> T:
        if self._observe_wait is not None:
            self._observe_wait(self._clock() - submitted)
        return call()

    def _release(self, _: Future[T] | None = None) -> None:
        with self._lock:
            self._held -= 1
