"""Traffic: the requests of a run, open-loop or closed-loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from engine.scheduling import Priority
from loadtests.simulator.errors import SimulationError
from loadtests.simulator.popularity import Popularity
from loadtests.simulator.request import Request

CHUNK = 65536
"""Requests drawn at once."""


class Traffic(ABC):
    """Say who asks when."""

    @abstractmethod
    def begin(self) -> Iterator[Request]:
        """Yield the requests that wait for nobody, in order of their time."""

    @abstractmethod
    def after(self, now: float) -> Request | None:
        """Return what a caller asks next when its request has ended at `now`."""


class OpenLoop(Traffic):
    """Requests that come when they come, whatever became of the others."""

    def __init__(self, requests: Iterable[Request]) -> None:
        self._requests = requests

    def begin(self) -> Iterator[Request]:
        """Yield all requests."""
        return iter(self._requests)

    def after(self, now: float) -> Request | None:
        """Return None: nobody waits for an answer."""
        return None


class ClosedLoop(Traffic):
    """`callers` who each ask again `think_seconds` after their answer, until `requests` are used up or `until` comes.

    The moments of `requests` are set anew.
    """

    def __init__(
        self, requests: Iterable[Request], *, callers: int, think_seconds: float = 0.0, until: float
    ) -> None:
        if callers < 1:
            raise SimulationError("callers", f"{callers} is less than 1")
        self._requests = iter(requests)
        self._callers = callers
        self._think = think_seconds
        self._until = until

    def begin(self) -> Iterator[Request]:
        """Yield each caller's first request, at 0."""
        return (replace(request, at=0.0) for request in islice(self._requests, self._callers))

    def after(self, now: float) -> Request | None:
        """Return the caller's next request."""
        moment = now + self._think
        request = next(self._requests, None) if moment < self._until else None
        return None if request is None else replace(request, at=moment)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """Say what requests are made of; each property is drawn by itself. Raises SimulationError.

    steps: drawn with equal chances. guided, referenced, batch: shares of the requests, from 0 to 1.
    newcomers: share of those with a reference whose person nobody has asked for before.
    """

    steps: Sequence[int] = (20,)
    guided: float = 1.0
    referenced: float = 1.0
    newcomers: float = 0.0
    batch: float = 0.0
    deadline: float | None = None

    def __post_init__(self) -> None:
        for name in ("guided", "referenced", "newcomers", "batch"):
            if not 0 <= getattr(self, name) <= 1:
                raise SimulationError(name, f"{getattr(self, name)} is no share from 0 to 1")
        if not self.steps:
            raise SimulationError("steps", "at least one number of steps is needed")


def poisson(
    mix: Mix, popularity: Popularity, *, rate: float, seconds: float, rng: np.random.Generator
) -> Iterator[Request]:
    """Yield requests at `rate` a second, independent of one another, for so many seconds.

    A rate of infinity yields an endless supply at time 0, for a closed loop. Raises SimulationError.
    """
    if not rate > 0:
        raise SimulationError("rate", f"{rate} is not above 0")
    moment, number, newest = 0.0, 0, popularity.people
    while True:
        moments = moment + np.cumsum(rng.exponential(1 / rate, CHUNK))
        moment = float(moments[-1])
        people = popularity.draw(CHUNK, rng)
        steps = rng.choice(np.asarray(mix.steps), CHUNK)
        draws = rng.random((4, CHUNK))
        for index in range(CHUNK):
            if moments[index] >= seconds:
                return
            referenced = draws[0, index] < mix.referenced
            new = referenced and draws[1, index] < mix.newcomers
            newest += new
            yield Request(
                id=number,
                at=float(moments[index]),
                person=(newest if new else int(people[index])) if referenced else None,
                brings_bytes=bool(new),
                steps=int(steps[index]),
                rows=2 if draws[2, index] < mix.guided else 1,
                priority=Priority.BATCH if draws[3, index] < mix.batch else Priority.INTERACTIVE,
                deadline=mix.deadline,
            )
            number += 1
