"""The shared tier out of its options. redis-py is imported here, and only where it is used."""

from __future__ import annotations

from server.config.redis import seal_key
from server.config.redis_options import RedisOptions
from server.references.shared.observer import SharedObserver
from server.references.shared.seal import Sealer
from server.references.shared.store import SharedReferences
from server.references.tiers import SharedTier


def build_shared_tier(options: RedisOptions, observer: SharedObserver) -> SharedTier:
    """Return the tier; it connects when it is first used."""
    from server.references.shared.redis_client import RedisClient

    store = SharedReferences(
        RedisClient(options),
        Sealer(seal_key(options)),
        options,
        observer,
    )
    return SharedTier(store=store, recheck=options.recheck_seconds, ttl=options.ttl_seconds)
