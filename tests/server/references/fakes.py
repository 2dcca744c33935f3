"""A library with a fake image encoder."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.models.preprocess import ReferencePreprocessing
from server.imaging.decode import ImageLimits
from server.imaging.formats import PictureFormat
from server.imaging.pool import ImagingPool
from server.references.cache import CacheEntry, CacheKey, ReferenceCache
from server.references.encoder import EncodedReference, EncoderFacts
from server.references.library import ReferenceLibrary
from server.references.record import CacheOutcome, ReferenceRecord
from server.references.tiers import SharedTier

TOKENS, WIDTH = 4, 8
FACTS = EncoderFacts(
    model="first",
    adapter="base",
    preprocessing=ReferencePreprocessing(size=32, shortest_edge=32).version,
    weights_hash="weights-1",
    tokens=TOKENS,
    width=WIDTH,
)


def picture(seed: int = 0, size: int = 64) -> bytes:
    """A sharp picture of blocks, as a PNG."""
    blocks = np.random.default_rng(seed).integers(30, 220, (size // 8, size // 8, 3), dtype=np.uint8)
    return picture_of(Image.fromarray(blocks).resize((size, size), Image.Resampling.NEAREST))


def picture_of(image: Image.Image) -> bytes:
    """An image as a PNG."""
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def record(digest: str = "ab" * 32) -> ReferenceRecord:
    return ReferenceRecord(
        digest=digest,
        width=300,
        height=400,
        size_bytes=123_456,
        format=PictureFormat.PNG,
        warnings=(),
        created=datetime(2026, 1, 2, tzinfo=UTC),
    )


def entry(tokens: int = 4, width: int = 768) -> CacheEntry:
    return CacheEntry(tokens=np.zeros((tokens, width), np.float32), record=record())


def key(digest: str, tenant: str = "t") -> CacheKey:
    return CacheKey(tenant, digest, "clip-pil-1", "weights")


class FakeEncoder:
    """Encodes a picture to numbers that depend on its pixels, when `gate` is open."""

    def __init__(self) -> None:
        self.current = FACTS
        self.calls = 0
        self.adapters: list[str] = []
        self.models: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.failure: Exception | None = None
        self.answer: NDArray[np.float32] | None = None
        self.away: Exception | None = None

    def facts(self, adapter: str = "", *, model: str = "") -> EncoderFacts:
        if self.away is not None:
            raise self.away
        facts = replace(self.current, model=model) if model else self.current
        return replace(facts, adapter=adapter, weights_hash=adapter) if adapter else facts

    async def encode(
        self, pixels: NDArray[np.uint8], adapter: str = "", *, model: str = ""
    ) -> EncodedReference:
        assert pixels.shape == (32, 32, 3)
        self.models.append(model)
        self.calls += 1
        self.adapters.append(adapter)
        self.entered.set()
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        if self.answer is not None:
            return EncodedReference(tokens=self.answer, seconds=0.01)
        seed = int.from_bytes(hashlib.sha256(pixels.tobytes()).digest()[:8], "big")
        tokens = np.random.default_rng(seed).standard_normal((TOKENS, WIDTH), dtype=np.float32)
        return EncodedReference(tokens=tokens, seconds=0.01)


class Tally:
    """Counts what the library reports."""

    def __init__(self) -> None:
        self.outcomes: Counter[CacheOutcome] = Counter()
        self.stages: Counter[str] = Counter()
        self.memory_hits = 0

    def cache(self, outcome: CacheOutcome) -> None:
        self.outcomes[outcome] += 1

    def memory(self, is_hit: bool) -> None:
        self.memory_hits += is_hit

    def stage_seconds(self, stage: str, seconds: float) -> None:
        assert seconds >= 0
        self.stages[stage] += 1


class Bench:
    """A library and all that it stands on."""

    def __init__(
        self,
        *,
        capacity_bytes: int = 1_000_000,
        max_waiting: int = 100,
        shared: SharedTier | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.encoder = FakeEncoder()
        self.tally = Tally()
        self.cache = ReferenceCache(capacity_bytes=capacity_bytes)
        self.pool = ImagingPool(workers=2, max_waiting=max_waiting)
        self.library = ReferenceLibrary(
            cache=self.cache,
            encoder=self.encoder,
            pool=self.pool,
            limits=ImageLimits(max_bytes=2_000_000, max_pixels=1_000_000, min_side=16),
            observer=self.tally,
            shared=shared,
            clock=clock,
        )

    async def __aenter__(self) -> Bench:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.library.close()
        self.pool.close()
