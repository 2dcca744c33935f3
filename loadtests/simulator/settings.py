"""Settings of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.config import EngineConfig
from loadtests.simulator.errors import SimulationError
from loadtests.simulator.machine import Machine

MAX_REPLICAS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSettings:
    """Say what a fleet is made of. Raises SimulationError.

    router: one of ``routing.ROUTERS``; balance: its bound on in-flight requests over their mean, None for none.
    cache_bytes, shared_bytes: the reference cache of each replica, and the one that all share (0: there is none).
    permits: requests in a server at once; more are refused.
    history_seconds: how long the fleet has run already, which fills its caches.
    warmup_seconds: time at the beginning that is simulated and not counted.
    """

    machine: Machine
    replicas: int = 1
    router: str = "hash"
    balance: float | None = 1.25
    cache_bytes: int = 64 << 20
    shared_bytes: int = 0
    permits: int = 256
    engine: EngineConfig = field(default_factory=EngineConfig)
    history_seconds: float = 86400.0
    warmup_seconds: float = 30.0
    seconds: float = 120.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.replicas <= MAX_REPLICAS:
            raise SimulationError("replicas", f"{self.replicas} is not from 1 to {MAX_REPLICAS}")
        for name in ("cache_bytes", "shared_bytes", "history_seconds", "warmup_seconds"):
            if not getattr(self, name) >= 0:
                raise SimulationError(name, f"{getattr(self, name)} is negative")
        if self.permits < 1:
            raise SimulationError("permits", f"{self.permits} is less than 1")
        if not 0 < self.seconds <= 1e6:
            raise SimulationError("seconds", f"{self.seconds} is not above 0 and at most 1e6")
