"""Routing: which replica a request goes to, as a balancer decides it."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections import Counter
from math import ceil

from loadtests.simulator.errors import SimulationError
from loadtests.simulator.ring import Ring


class Router(ABC):
    """Choose replicas; `in_flight` counts the requests that each has not answered yet."""

    def __init__(self, replicas: int) -> None:
        if replicas < 1:
            raise SimulationError("replicas", f"{replicas} is less than 1")
        self.replicas = replicas
        self.in_flight = [0] * replicas
        self.total = 0
        self.spilled = 0
        """Requests that did not go to the replica that their person belongs to."""

    def route(self, person: int | None) -> int:
        """Return the replica of a request, which is in flight from now on."""
        replica = self._choose(person)
        self.in_flight[replica] += 1
        self.total += 1
        return replica

    def ended(self, replica: int) -> None:
        """Count a request as answered."""
        self.in_flight[replica] -= 1
        self.total -= 1

    @abstractmethod
    def _choose(self, person: int | None) -> int:
        """Return a replica."""


class RoundRobin(Router):
    """One after the other."""

    def __init__(self, replicas: int, **_: object) -> None:
        super().__init__(replicas)
        self._next = 0

    def _choose(self, person: int | None) -> int:
        self._next = (self._next + 1) % self.replicas
        return self._next


class LeastRequest(Router):
    """The less busy of two that are drawn: Envoy's LEAST_REQUEST (Mitzenmacher, 2001)."""

    def __init__(self, replicas: int, *, seed: int, **_: object) -> None:
        super().__init__(replicas)
        self._random = random.Random(seed)

    def _choose(self, person: int | None) -> int:
        one, other = self._random.randrange(self.replicas), self._random.randrange(self.replicas)
        return one if self.in_flight[one] <= self.in_flight[other] else other


class HashAffine(Router):
    """The person's owner on the ring, or the next with room: consistent hashing with bounded loads.

    No replica gets a request while it has `balance` times the mean in flight or more, rounded up (Mirrokni, Thorup and
    Zadimoghaddam, 2018, arXiv 1608.01350; Envoy's ``hash_balance_factor``). None bounds nothing. A request about
    nobody goes to the less busy of two.
    """

    def __init__(self, replicas: int, *, seed: int, balance: float | None = 1.25, **_: object) -> None:
        super().__init__(replicas)
        if balance is not None and not balance > 1:
            raise SimulationError("balance", f"{balance} is not above 1")
        self._balance = balance
        self._anywhere = random.Random(seed)
        self.ring = Ring(replicas)
        self.depths: Counter[int] = Counter()
        """Requests by how many replicas had no room for them."""

    def _choose(self, person: int | None) -> int:
        if person is None:
            one, other = self._anywhere.randrange(self.replicas), self._anywhere.randrange(self.replicas)
            return one if self.in_flight[one] <= self.in_flight[other] else other
        walk = self.ring.walk(person)
        if self._balance is None:
            return next(walk)
        bound = ceil(self._balance * (self.total + 1) / self.replicas)
        for tried, replica in enumerate(walk):
            if self.in_flight[replica] < bound:
                self.spilled += tried > 0
                self.depths[tried] += 1
                return replica
        raise AssertionError("bounds above the mean leave room somewhere")


class HashUnbounded(HashAffine):
    """The person's owner, however busy it is: what a balancer's hash policy does where no bound is set."""

    def __init__(self, replicas: int, *, seed: int, **_: object) -> None:
        super().__init__(replicas, seed=seed, balance=None)


ROUTERS: dict[str, type[RoundRobin] | type[LeastRequest] | type[HashAffine]] = {
    "hash": HashAffine,
    "hash-unbounded": HashUnbounded,
    "round-robin": RoundRobin,
    "least-request": LeastRequest,
}


def router(name: str, replicas: int, *, seed: int, balance: float | None) -> Router:
    """Return a router by its name. Raises SimulationError."""
    if name not in ROUTERS:
        raise SimulationError("router", f"{name} is none of {', '.join(ROUTERS)}")
    return ROUTERS[name](replicas, seed=seed, balance=balance)
