"""Idempotency keys: a second call with the same key joins the first, or gets its result from memory."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from sys import getsizeof
from typing import NamedTuple

from server.errors import DeadlineInfeasibleError, DeadlinePassedError, IdempotencyConflictError
from server.portraits.news import Completed, FinishedImage, News, Preview

ENTRY_BYTES = 4096
"""Counted for each result beside what it tells."""
NEWS_BYTES = 256
"""Counted for each piece of news beside its picture and its texts."""


class Key(NamedTuple):
    """Keys of different tenants never meet."""

    tenant: str
    key: str


class SharedGeneration:
    """A generation that any number of calls follow. It runs until its end or until nobody follows it any more."""

    def __init__(self, task_id: str, fingerprint: bytes, news: AsyncGenerator[News, None]) -> None:
        self.task_id = task_id
        self.fingerprint = fingerprint
        self.done = False
        self.error: BaseException | None = None
        self.is_joinable = True
        """Whether another call can still have its result."""
        self._history: list[News] = []
        self._changed = asyncio.Event()
        self._followers = 0
        self._task = asyncio.create_task(self._pump(news), name=f"generation {task_id}")
        self._task.add_done_callback(self._end)

    @property
    def size_bytes(self) -> int:
        """Bytes that its result holds."""
        return ENTRY_BYTES + sum(_size(item) for item in self._history)

    async def follow(self) -> AsyncGenerator[News, None]:
        """Yield its news from the start. Raises what ended it."""
        self._followers += 1
        history, told = self._history, 0
        try:
            while True:
                while told < len(history):
                    told += 1
                    yield history[told - 1]
                if self.done:
                    if self.error is not None:
                        raise self.error
                    return
                await self._changed.wait()
        finally:
            self._followers -= 1
            if not self._followers and not self.done:
                self.is_joinable = False
                self._task.cancel()

    def on_done(self, callback: Callable[[], None]) -> None:
        """Call back at its end."""
        self._task.add_done_callback(lambda _: callback())

    async def _pump(self, news: AsyncGenerator[News, None]) -> None:
        async with aclosing(news):
            async for item in news:
                self._history.append(item)
                self._wake()

    def _end(self, task: asyncio.Task[None]) -> None:
        self.error = asyncio.CancelledError() if task.cancelled() else task.exception()
        self.is_joinable = self.error is None
        self.done = True
        # A new list: who still follows has the old one.
        self._history = [item for item in self._history if not isinstance(item, Preview)]
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class IdempotentGenerations:
    """Generations in flight and results kept, by key; results for ``ttl`` seconds and within ``max_bytes``."""

    def __init__(self, *, ttl: float, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl = ttl
        self._max_bytes = max_bytes
        self._clock = clock
        self._running: dict[Key, SharedGeneration] = {}
        self._kept: OrderedDict[Key, tuple[float, SharedGeneration]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._running) + len(self._kept)

    @property
    def bytes_kept(self) -> int:
        """Bytes of the results that are kept."""
        return self._bytes

    def find(self, key: Key, fingerprint: bytes) -> SharedGeneration | None:
        """Return the generation of this key. Raises ``IdempotencyConflictError`` when it is of another portrait."""
        self._expire()
        kept = self._kept.get(key)
        shared = self._running.get(key) or (kept[1] if kept is not None else None)
        if shared is None or not shared.is_joinable:
            return None
        if shared.fingerprint != fingerprint:
            raise IdempotencyConflictError
        return shared

    def start(
        self, key: Key, task_id: str, fingerprint: bytes, news: AsyncGenerator[News, None]
    ) -> SharedGeneration:
        """Run a generation under a key that ``find`` found nothing for."""
        shared = SharedGeneration(task_id, fingerprint, news)
        self._running[key] = shared
        shared.on_done(lambda: self._ended(key, shared))
        return shared

    def _ended(self, key: Key, shared: SharedGeneration) -> None:
        if self._running.get(key) is shared:
            del self._running[key]
        if shared.error is None and shared.size_bytes <= self._max_bytes:
            self._forget(key)
            self._kept[key] = (self._clock() + self._ttl, shared)
            self._bytes += shared.size_bytes
            while self._bytes > self._max_bytes:
                self._drop_oldest()

    def _expire(self) -> None:
        now = self._clock()
        while self._kept and next(iter(self._kept.values()))[0] <= now:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self._forget(next(iter(self._kept)))

    def _forget(self, key: Key) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._bytes -= kept[1].size_bytes


def _size(news: News) -> int:
    match news:
        case FinishedImage():
            return NEWS_BYTES + getsizeof(news.data)
        case Completed(portrait=portrait):
            texts = [portrait.prompt, portrait.negative_prompt, news.prompt_seen]
            texts += [text for warning in news.warnings for text in (warning.message, warning.action)]
            return NEWS_BYTES * (1 + len(news.warnings)) + sum(map(getsizeof, texts))
        case _:
            return NEWS_BYTES


def is_its_first_callers_own(error: BaseException) -> bool:
    """Whether an error is about the first caller's deadline, so that one who joined may try again with his own."""
    return isinstance(error, DeadlinePassedError | DeadlineInfeasibleError | asyncio.CancelledError)
