"""What a caller may ask of a portrait, beside its prompt and its reference."""

from dataclasses import dataclass
from typing import TypedDict

from limner_client.choices import ImageFormat, Priority, ReferenceLayers, Sampler


class Settings(TypedDict, total=False):
    """Names the settings of `generate` and `stream`; one that is left out takes the model's default."""

    negative_prompt: str
    """What to keep out; acts only with a `guidance_scale` above 1."""
    ip_adapter_scale: float
    """Weight of the reference against the prompt: 0 (prompt alone) to `Limits.max_ip_adapter_scale`."""
    guidance_scale: float
    """How strictly the prompt is obeyed; 1 or less switches guidance off. Too high gives brittle pictures."""
    guidance_rescale: float
    """Tempers over-exposure at high guidance: 0 (off) to 1 (arXiv 2305.08891)."""
    guidance_start: float
    """Part of the denoising after which guidance begins: 0 (at once) to 1. Steps without guidance cost half."""
    guidance_end: float
    """Part of the denoising after which guidance ends: up to 1 (never)."""
    steps: int
    """Denoising steps: they steady fine detail, not identity."""
    sampler: Sampler | str
    width: int
    """Pixels, a multiple of `Model.size_multiple`."""
    height: int
    """Pixels, a multiple of `Model.size_multiple`."""
    image_count: int
    """1 to `Limits.max_images`; they differ by seed: seed, seed + 1, and so on."""
    seed: int
    """Makes the portrait repeatable: 0 to 2^63 - 1."""
    format: ImageFormat | str
    quality: int
    """Quality of JPEG and WebP: 1 to 100. PNG takes none."""
    priority: Priority | str
    deterministic: bool
    """Asks for the same bits whatever shares the batch, at some cost in throughput."""
    model: str
    adapter: str
    """One of `Model.adapters`; all references go through it."""
    reference_layers: ReferenceLayers | str
    """Which layers the references act on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortraitSpec:
    """Holds a prompt and its settings; `None` means the model's default."""

    prompt: str
    negative_prompt: str | None = None
    ip_adapter_scale: float | None = None
    guidance_scale: float | None = None
    guidance_rescale: float | None = None
    guidance_start: float | None = None
    guidance_end: float | None = None
    steps: int | None = None
    sampler: Sampler | str | None = None
    width: int | None = None
    height: int | None = None
    image_count: int | None = None
    seed: int | None = None
    format: ImageFormat | str | None = None
    quality: int | None = None
    priority: Priority | str | None = None
    deterministic: bool | None = None
    model: str | None = None
    adapter: str | None = None
    reference_layers: ReferenceLayers | str | None = None
