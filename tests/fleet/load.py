"""Load: callers that make one call after another until they are told to stop, and what came of each."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.waiting import until

MOST_FAILURES_TOLD = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of call. ``make`` gets a number that no other call of the load gets, and raises what goes wrong."""

    name: str
    make: Callable[[int], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a call ended; ``error`` is empty when it was answered."""

    kind: str
    error: str
    seconds: float


class Load:
    """Makes ``kinds`` of calls in turn, ``callers`` at once, while the block lasts. Reads its outcomes after it."""

    def __init__(self, kinds: Sequence[Kind], *, callers: int, pause: float = 0.0) -> None:
        self._kinds = kinds
        self._pause = pause
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._numbers = 0
        self._outcomes: list[Outcome] = []
        self._threads = [threading.Thread(target=self._call, name=f"caller {n}") for n in range(callers)]

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        with self._lock:
            return tuple(self._outcomes)

    @property
    def failures(self) -> list[str]:
        """Tell the first of the failed calls, and how many there were."""
        failed = [f"{outcome.kind}: {outcome.error}" for outcome in self.outcomes if outcome.error]
        more = len(failed) - MOST_FAILURES_TOLD
        return failed[:MOST_FAILURES_TOLD] + ([f"and {more} more"] if more > 0 else [])

    def counts(self) -> Counter[str]:
        """Count the calls that were answered, by kind."""
        return Counter(outcome.kind for outcome in self.outcomes if not outcome.error)

    def until(self, calls: int) -> None:
        """Wait until as many calls have ended."""
        until(lambda: len(self.outcomes) >= calls, f"there were not {calls} calls")

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        while not self._stopped.is_set():
            with self._lock:
                number = self._numbers
                self._numbers += 1
            kind = self._kinds[number % len(self._kinds)]
            began, problem = time.monotonic(), ""
            try:
                kind.make(number)
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
            with self._lock:
                self._outcomes.append(
                    Outcome(kind=kind.name, error=problem, seconds=time.monotonic() - began)
                )
            self._stopped.wait(self._pause)
