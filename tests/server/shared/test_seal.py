"""The seal: what was written comes back, and nothing else does."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.references.cache import CacheEntry, CacheKey
from server.references.record import ReferenceWarning, ReferenceWarningCode
from server.references.shared.seal import CorruptEntry, Sealer
from tests.server.references.fakes import record

DIGEST = "ab" * 32
KEY = CacheKey("tenant", DIGEST, "clip", "weights")
WARNING = ReferenceWarning(code=ReferenceWarningCode.SMALL, message="small \u00e9", action="use a larger one")
RECORD = replace(record(), warnings=(WARNING,), created=datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC))
TOKENS = np.random.default_rng(5).standard_normal((4, 8), dtype=np.float32)
ENTRY = CacheEntry(tokens=TOKENS, record=RECORD)
SECRET = b"0123456789abcdef"


@pytest.mark.parametrize("secret", [b"", SECRET])
def test_what_was_sealed_is_opened_bit_for_bit(secret: bytes) -> None:
    value = Sealer(secret).seal(KEY, ENTRY)
    entry = Sealer(secret).open(KEY, value, (4, 8))
    assert entry.tokens.tobytes() == TOKENS.tobytes()
    assert entry.tokens.base is None
    assert not entry.tokens.flags.writeable
    assert entry.record == RECORD
    assert len(value) < TOKENS.nbytes + 500


def test_a_record_alone() -> None:
    value = Sealer().seal_record("tenant", DIGEST, RECORD)
    assert Sealer().open_record("tenant", DIGEST, value) == RECORD
    with pytest.raises(CorruptEntry):
        Sealer().open_record("other", DIGEST, value)
    with pytest.raises(CorruptEntry):
        Sealer().open(KEY, value, (4, 8))
    with pytest.raises(CorruptEntry):
        Sealer().open_record("tenant", DIGEST, Sealer().seal(KEY, ENTRY))


@pytest.mark.parametrize(
    "other",
    [
        KEY._replace(tenant="tenant2"),
        KEY._replace(digest="cd" * 32),
        KEY._replace(preprocessing="clip2"),
        KEY._replace(weights_hash="weights2"),
        KEY._replace(preprocessing="clipw", weights_hash="eights"),
    ],
)
def test_an_entry_of_another_key_is_foreign(other: CacheKey) -> None:
    value = Sealer().seal(other, replace(ENTRY, record=replace(RECORD, digest=other.digest)))
    with pytest.raises(CorruptEntry):
        Sealer().open(KEY, value, (4, 8))


@given(st.data())
def test_a_value_that_was_changed_anywhere_is_found_out(data: st.DataObject) -> None:
    value = Sealer().seal(KEY, ENTRY)
    place = data.draw(st.integers(0, len(value) - 1))
    change = data.draw(st.integers(1, 255))
    changed = bytearray(value)
    changed[place] ^= change
    for broken in (bytes(changed), value[:place], value[place + 1 :], value + bytes([change])):
        with pytest.raises(CorruptEntry):
            Sealer().open(KEY, broken, (4, 8))


@given(st.binary(max_size=400))
def test_strangers_bytes_are_corrupt_and_nothing_else(value: bytes) -> None:
    for sealer in (Sealer(), Sealer(SECRET)):
        with pytest.raises(CorruptEntry):
            sealer.open(KEY, value, (4, 8))
        # So are they with a seal that fits them, as a stranger can make it where there is no secret.
        forged = value + sealer._seal(KEY, value)
        with pytest.raises(CorruptEntry):
            sealer.open(KEY, forged, (4, 8))


@pytest.mark.parametrize(("mine", "theirs"), [(SECRET, b""), (b"", SECRET), (SECRET, SECRET[::-1])])
def test_without_the_secret_nobody_forges_an_entry(mine: bytes, theirs: bytes) -> None:
    with pytest.raises(CorruptEntry):
        Sealer(mine).open(KEY, Sealer(theirs).seal(KEY, ENTRY), (4, 8))


@pytest.mark.parametrize(
    "entry",
    [
        replace(ENTRY, tokens=TOKENS[:3]),
        replace(ENTRY, tokens=TOKENS.T),
        replace(ENTRY, tokens=np.where(TOKENS > 1, np.nan, TOKENS).astype(np.float32)),
        replace(ENTRY, record=replace(RECORD, digest="cd" * 32)),
    ],
)
def test_a_sealed_entry_that_does_not_fit_is_corrupt_as_well(entry: CacheEntry) -> None:
    with pytest.raises(CorruptEntry):
        Sealer().open(KEY, Sealer().seal(KEY, entry), (4, 8))
