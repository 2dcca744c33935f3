"""Three servers that share a Redis, Envoy before them, and Prometheus that watches them: all real."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass

from tests.fleet.monitoring import Prometheus
from tests.fleet.replica import Replica
from tests.waiting import until
from tools.local_envoy import LocalEnvoy


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A reference that was uploaded; ``home`` is the replica that its first call met."""

    digest: str
    picture: bytes
    home: Replica


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What runs. Tests leave it whole: all replicas up, and all of them in Envoy's choice."""

    replicas: tuple[Replica, ...]
    envoy: LocalEnvoy
    prometheus: Prometheus

    def start(self, *replicas: Replica) -> float:
        """Start replicas and return the seconds until calls may go to all of them."""
        began = time.monotonic()
        for replica in replicas:
            replica.start()
        for replica in replicas:
            replica.until_ready()
        until(
            lambda: {replica.target for replica in replicas} <= self.envoy.healthy(), "Envoy leaves one out"
        )
        return time.monotonic() - began

    def home(self, request_id: str) -> Replica:
        """Find the replica that answered a call."""
        return self.homes([request_id])[request_id]

    def homes(self, request_ids: Collection[str]) -> dict[str, Replica]:
        """Find the replica that answered each call, by what the replicas themselves have logged."""
        homes: dict[str, Replica] = {}

        def are_logged() -> bool:  # a server writes its line when the answer is on its way already
            for replica in self.replicas:
                homes.update(dict.fromkeys(replica.answered() & set(request_ids), replica))
            return len(homes) == len(request_ids)

        until(are_logged, "calls that were answered are in no replica's log")
        return homes
