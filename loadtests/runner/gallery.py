"""The gallery: a distinct drawn portrait for every person of a load test."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random

SIZE = 256
"""Pixels a side, as of the portraits that ship with the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """An encoded picture and its SHA-256 in hexadecimal digits, which is how a server names it."""

    data: bytes = field(repr=False)
    digest: str


class Gallery:
    """Draws people from a seed, each once. The same seed and number give the same bytes; no two are alike."""

    def __init__(self, seed: int, size: int = SIZE) -> None:
        self._seed = seed
        self._size = size
        self._pictures: dict[int, Picture] = {}

    def prepare(self, people: Iterable[int]) -> None:
        """Draw these people now (about 6 ms each), so that nothing is drawn while time is taken."""
        for person in people:
            self.picture(person)

    def picture(self, person: int) -> Picture:
        """Return a person's portrait as PNG, in a scene like those of the references that ship with the model."""
        if person not in self._pictures:
            data = _draw(self._seed, person, self._size)
            self._pictures[person] = Picture(data=data, digest=hashlib.sha256(data).hexdigest())
        return self._pictures[person]


@lru_cache(maxsize=4096)
def _draw(seed: int, person: int, size: int) -> bytes:
    from PIL.PngImagePlugin import PngInfo

    # Numpy and Pillow, no torch; still only here, as a plan needs no pictures.
    from engine.embedded.world import Scene, render, sample_identity

    neutral = Scene(
        background="white",
        clothing="white",
        garment="sweater",
        expression="neutral",
        gaze="ahead",
        light="soft",
        framing="medium",
        hat="none",
        style="flat",
    )
    # A string seeds by its hash, which unlike a sum keeps (1, 2) and (2, 1) apart.
    identity = sample_identity(Random(f"{seed}/{person}"))
    told = PngInfo()
    # Two persons drawn alike would be one reference; the number makes their files, and so their digests, differ.
    told.add_text("Title", f"person {person} of load test {seed}")
    picture = io.BytesIO()
    render(identity, neutral, size=size).save(picture, "PNG", pnginfo=told)
    return picture.getvalue()
