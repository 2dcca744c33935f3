"""The library of references: what the servicers ask for tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from engine.models.preprocess import ReferencePreprocessing
from server.imaging.decode import DECODE_REVISION, ImageLimits, check_bytes, decode_image
from server.imaging.errors import InvalidImage
from server.imaging.pool import ImagingPool
from server.references.cache import CacheEntry, CacheKey, ReferenceCache
from server.references.digest import Hasher, parse_digest
from server.references.encoder import EncodedReference, EncoderFacts, ReferenceEncoder
from server.references.errors import ReferenceEncodingFailed, ReferenceNotFound
from server.references.flights import Flight, Flights
from server.references.judge import judge
from server.references.record import CacheOutcome, ReferenceRecord, ResolvedReference
from server.references.tiers import ReferenceTiers, SharedTier
from server.tracing.references import reference_work


class ReferenceObserver(Protocol):
    """Is told what the library does; ``server.metrics.observer.ServerMetrics`` is one."""

    def cache(self, outcome: CacheOutcome) -> None:
        """Count a reference that was had."""
        ...

    def memory(self, is_hit: bool) -> None:
        """Count a look-up in the memory tier."""
        ...

    def stage_seconds(self, stage: str, seconds: float) -> None:
        """Observe ``decode_input`` and ``encode_reference``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Landed:
    """What an encode in flight came to."""

    entry: CacheEntry
    decode_seconds: float


class ReferenceLibrary:
    """Resolves references to tokens: from the cache, from another request's encode in flight, or by encoding.

    Belongs to one event loop. ``resolve`` and ``lookup`` also raise what ``ReferenceEncoder.facts`` raises.
    """

    def __init__(
        self,
        *,
        cache: ReferenceCache,
        encoder: ReferenceEncoder,
        pool: ImagingPool,
        limits: ImageLimits,
        observer: ReferenceObserver,
        shared: SharedTier | None = None,
        clock: Callable[[], float] = time.perf_counter,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._tiers = ReferenceTiers(cache, shared, clock=clock, observe_memory=observer.memory)
        self._encoder = encoder
        self._pool = pool
        self._limits = limits
        self._observer = observer
        self._clock = clock
        self._now = now
        self._hasher = Hasher()
        self._flights: Flights[tuple[str, CacheKey], _Landed] = Flights()
        """By model as well: models may share an entry, but not the fate of an engine."""
        self._variants: dict[EncoderFacts, tuple[str, str]] = {}
        """The end of the keys, (preprocessing, weights), for each adapter asked for; keys share its strings."""

    async def resolve(
        self,
        tenant: str,
        image: bytes,
        *,
        model: str = "",
        adapter: str = "",
        field: str = "portrait.reference_image",
    ) -> ResolvedReference:
        """Return the tokens of an uploaded picture from an adapter of a model; '' is the default of each.

        Raises ``InvalidImage`` about ``field``, ``ImagingOverloaded``, ``ReferenceEncodingFailed`` and the
        encoder's own errors. A failure reaches every request that waited for the same encode, and is not
        remembered.
        """
        began = self._clock()
        check_bytes(image, self._limits, field=field)
        digest = await self._hasher.digest(image)
        facts = self._encoder.facts(adapter, model=model)
        key = self._key(tenant, digest, facts)
        flying = facts.model, key
        entry = await self._tiers.get(key, _shape(facts), ask=self._flights.get(flying) is None)
        if entry is not None:
            return self._had(CacheOutcome.HIT, entry, began)
        flight, outcome = self._flights.get(flying), CacheOutcome.COALESCED
        if flight is None:
            outcome = CacheOutcome.MISS
            flight = self._flights.launch(flying, lambda flight: self._encode(flight, key, facts, image))
        try:
            landed = await self._flights.join(flying, flight)
        except InvalidImage as error:
            raise error.at(field) from error
        decode_seconds = landed.decode_seconds if outcome is CacheOutcome.MISS else 0.0
        return self._had(outcome, landed.entry, began, decode_seconds)

    async def lookup(
        self, tenant: str, digest: str, *, model: str = "", adapter: str = ""
    ) -> ResolvedReference:
        """Return the tokens of a reference that the adapter knows, waiting for an encode of it in flight.

        Raises ``InvalidDigest`` and ``ReferenceNotFound``, and of an encode in flight what ``resolve``
        raises, save that a picture which turns out to be none was never known.
        """
        began = self._clock()
        facts = self._encoder.facts(adapter, model=model)
        key = self._key(tenant, parse_digest(digest), facts)
        flying = facts.model, key
        entry = await self._tiers.get(key, _shape(facts), ask=self._flights.get(flying) is None)
        if entry is not None:
            return self._had(CacheOutcome.HIT, entry, began)
        flight = self._flights.get(flying)
        if flight is None:
            raise ReferenceNotFound(digest)
        try:
            landed = await self._flights.join(flying, flight)
        except InvalidImage as error:
            raise ReferenceNotFound(digest) from error
        return self._had(CacheOutcome.COALESCED, landed.entry, began)

    async def get(self, tenant: str, digest: str) -> ReferenceRecord:
        """Return what is known of a reference, with no engine needed.

        Raises ``InvalidDigest`` and ``ReferenceNotFound``.
        """
        keys = [key for _, key in self._keys(tenant, parse_digest(digest))]
        record = await self._tiers.record(tenant, digest, keys)
        if record is None:
            raise ReferenceNotFound(digest)
        return record

    async def delete(self, tenant: str, digest: str) -> None:
        """Forget a reference; an encode of it in flight answers its requests but is not kept.

        Raises ``InvalidDigest``, and ``ReferenceNotFound`` when there is neither.
        """
        flying = list(self._keys(tenant, parse_digest(digest)))
        released = [self._flights.release(each) for each in flying]
        found = await self._tiers.delete(tenant, digest, [key for _, key in flying])
        if not found and not any(released):
            raise ReferenceNotFound(digest)

    async def close(self) -> None:
        """Cancel the encodes in flight, and end the hashing thread."""
        await self._flights.close()
        await self._tiers.close()
        self._hasher.close()

    def _key(self, tenant: str, digest: str, facts: EncoderFacts) -> CacheKey:
        variant = self._variants.get(facts)
        if variant is None:
            variant = f"{DECODE_REVISION} {facts.preprocessing}", facts.weights_hash
            self._variants[facts] = variant
        return CacheKey(tenant, digest, *variant)

    def _keys(self, tenant: str, digest: str) -> Iterator[tuple[str, CacheKey]]:
        """Yield each model with a key; models may have the same ones."""
        return (
            (facts.model, CacheKey(tenant, digest, *variant)) for facts, variant in self._variants.items()
        )

    def _had(
        self, outcome: CacheOutcome, entry: CacheEntry, began: float, decode_seconds: float = 0.0
    ) -> ResolvedReference:
        self._observer.cache(outcome)
        return ResolvedReference(
            digest=entry.record.digest,
            tokens=entry.tokens,
            outcome=outcome,
            record=entry.record,
            decode_seconds=decode_seconds,
            reference_seconds=self._clock() - began,
        )

    async def _encode(
        self, flight: Flight[_Landed], key: CacheKey, facts: EncoderFacts, image: bytes
    ) -> _Landed:
        """Do the work of a miss: decode, judge and resize in a thread, then the engine's image encoder."""
        pixels, record, decode_seconds = await self._pool.run(self._prepare, key.digest, facts, image)
        self._observer.stage_seconds("decode_input", decode_seconds)
        reference_work("decode_input", decode_seconds, bytes=len(image))
        # Once the engine has the picture, it encodes it whoever waits: the tokens may as well be kept.
        flight.committed = True
        encoded = await self._encoder.encode(pixels, facts.adapter, model=facts.model)
        self._observer.stage_seconds("encode_reference", encoded.seconds)
        reference_work("encode_reference", encoded.seconds, pictures=encoded.batch)
        entry = CacheEntry(tokens=_checked(encoded, facts), record=record)
        if flight.wanted and not self._tiers.put(key, entry):
            structlog.get_logger(__name__).warning("reference_larger_than_cache", digest=key.digest)
        return _Landed(entry=entry, decode_seconds=decode_seconds)

    def _prepare(
        self, digest: str, facts: EncoderFacts, image: bytes
    ) -> tuple[NDArray[np.uint8], ReferenceRecord, float]:
        """Decode, judge and resize; runs in a thread."""
        began = self._clock()
        preprocessing = ReferencePreprocessing.parse(facts.preprocessing)
        decoded = decode_image(image, self._limits, field="reference_image")
        warnings = judge(
            decoded.picture, width=decoded.width, height=decoded.height, encoder_size=preprocessing.size
        )
        pixels = preprocessing.apply(decoded.picture)
        record = ReferenceRecord(
            digest=digest,
            width=decoded.width,
            height=decoded.height,
            size_bytes=len(image),
            format=decoded.format,
            warnings=warnings,
            created=self._now(),
        )
        return pixels, record, self._clock() - began


def _shape(facts: EncoderFacts) -> tuple[int, int]:
    return facts.tokens, facts.width


def _checked(encoded: EncodedReference, facts: EncoderFacts) -> NDArray[np.float32]:
    """Return the tokens in memory of their own, read-only: a wrong embedding must never be kept."""
    tokens = np.array(encoded.tokens, dtype=np.float32, order="C")
    expected = _shape(facts)
    if tokens.shape != expected:
        raise ReferenceEncodingFailed(f"the image encoder gave {tokens.shape}, not {expected}")
    if not np.isfinite(tokens).all():
        raise ReferenceEncodingFailed("the image encoder's arithmetic left the range of numbers")
    tokens.setflags(write=False)
    return tokens
