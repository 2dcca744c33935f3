"""The cache against a model of it, and its bookkeeping against the allocator."""

from __future__ import annotations

import tracemalloc
from collections import OrderedDict
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.references.cache import CacheEntry, CacheKey, ReferenceCache, entry_bytes
from server.references.record import ReferenceWarning, ReferenceWarningCode
from tests.server.references.fakes import entry, key, record

DIGESTS = [f"{number:064x}" for number in range(12)]
SMALL = entry_bytes(key(DIGESTS[0]), entry(width=8))

operations = st.lists(
    st.tuples(
        st.sampled_from(["get", "put", "delete", "peek"]),
        st.sampled_from(DIGESTS),
        st.sampled_from([8, 64, 512]),
    ),
    max_size=200,
)


@given(operations=operations, capacity=st.integers(0, 12 * SMALL))
@settings(deadline=None, max_examples=200)
def test_behaves_like_its_model(operations: list[tuple[str, str, int]], capacity: int) -> None:
    evicted: list[CacheKey] = []
    cache = ReferenceCache(capacity_bytes=capacity, on_evict=lambda key, _: evicted.append(key))
    model: OrderedDict[CacheKey, CacheEntry] = OrderedDict()
    for operation, digest, width in operations:
        place = key(digest)
        if operation == "get":
            assert cache.get(place) is model.get(place)
            if place in model:
                model.move_to_end(place)
        elif operation == "peek":
            assert cache.peek(place) is model.get(place)
        elif operation == "delete":
            assert cache.delete(place) is (model.pop(place, None) is not None)
        else:
            held, size = entry(width=width), entry_bytes(place, entry(width=width))
            model.pop(place, None)
            expected: list[CacheKey] = []
            if fits := size <= capacity:
                while sum(entry_bytes(k, e) for k, e in model.items()) + size > capacity:
                    expected.append(model.popitem(last=False)[0])
                model[place] = held
            evicted.clear()
            assert cache.put(place, held) is fits
            assert evicted == expected
        assert len(cache) == len(model)
        assert cache.bytes == sum(entry_bytes(k, e) for k, e in model.items()) <= capacity


def test_each_part_of_the_key_counts() -> None:
    cache = ReferenceCache(capacity_bytes=10**6)
    place = key(DIGESTS[0])
    cache.put(place, entry())
    for part in CacheKey._fields:
        assert cache.get(place._replace(**{part: "other"})) is None
    assert cache.get(key(DIGESTS[0])) is not None


@pytest.mark.parametrize("width", [16, 768])
def test_counts_what_it_costs(width: int) -> None:
    """The allocator never says more of 1,000 entries than the cache does, nor much less."""
    cache = ReferenceCache(capacity_bytes=10**9)
    warning = ReferenceWarning(code=ReferenceWarningCode.SMALL, message="m" * 80, action="a" * 60)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(1000):
        digest = f"{number:064x}"
        own = replace(warning, message=f"{number:0100d}", action=f"{number:060d}")
        created = datetime.fromtimestamp(1_800_000_000 + number, UTC)
        held = replace(
            record(digest), width=1000 + number, height=900 + number, size_bytes=10**6 + number,
            warnings=(own,), created=created,
        )  # fmt: skip
        tokens = np.zeros((4, width), np.float32)
        place = CacheKey(f"tenant-{number}", digest, "clip", "weights")
        cache.put(place, CacheEntry(tokens=tokens, record=held))
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert 0.85 * cache.bytes <= after - before <= cache.bytes


def test_counts_borrowed_memory() -> None:
    owned = entry()
    borrowed = CacheEntry(tokens=np.frombuffer(bytes(owned.tokens), np.float32), record=owned.record)
    assert entry_bytes(key("a"), borrowed) >= entry_bytes(key("a"), owned) - 64


def test_a_negative_capacity_is_an_error() -> None:
    with pytest.raises(ValueError, match="capacity"):
        ReferenceCache(capacity_bytes=-1)
