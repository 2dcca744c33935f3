"""A portrait that can be made: every value checked, every default filled in."""

from __future__ import annotations

from dataclasses import dataclass

from server.imaging.formats import PictureFormat
from server.portraits.request import Priority, ReferenceLayers, Region, Sampler

SEED_COUNT = 2**63
"""Seeds are 0 to this minus 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortraitReference:
    """A reference by its picture or, where ``image`` is empty, by its digest.

    ``field`` is the request field that named it, ``weight_field`` the one that its weight stands in.
    """

    field: str
    image: bytes = b""
    digest: str = ""
    weight: float = 1.0
    region: Region | None = None
    weight_field: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Portrait:
    """What to make. ``adapter`` is empty without references."""

    prompt: str
    negative_prompt: str
    references: tuple[PortraitReference, ...]
    reference_layers: ReferenceLayers
    adapter: str
    ip_adapter_scale: float
    guidance_scale: float
    guidance_rescale: float
    guidance_start: float
    guidance_end: float
    steps: int
    sampler: Sampler
    width: int
    height: int
    image_count: int
    seed: int
    format: PictureFormat
    quality: int
    priority: Priority
    deterministic: bool
    model: str

    @property
    def regions(self) -> tuple[Region | None, ...]:
        """The region of each reference; none when no reference has one."""
        regions = tuple(reference.region for reference in self.references)
        return regions if any(region is not None for region in regions) else ()

    @property
    def has_reference(self) -> bool:
        """Whether a reference conditions it."""
        return bool(self.references)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each image: seed, seed + 1, ... modulo 2^63."""
        return tuple((self.seed + index) % SEED_COUNT for index in range(self.image_count))
