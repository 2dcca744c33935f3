"""What a server can do, the limits that it holds requests to, and whether it is well."""

from dataclasses import dataclass

from limner_client.choices import ReferenceLayers, Sampler


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerLimits:
    """Holds the step counts that a sampler takes."""

    sampler: Sampler
    min_steps: int
    max_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Describes a model that requests can name."""

    name: str
    family: str
    adapters: tuple[str, ...]
    """The default first."""
    default_width: int
    default_height: int
    size_multiple: int
    min_size: int
    max_size: int
    prompt_tokens: int
    """Length of the text encoder's window, start and end tokens included."""
    samplers: tuple[SamplerLimits, ...]
    """The default first."""
    default_steps: int
    default_guidance_scale: float
    weights_hash: str
    buckets: tuple[int, ...]
    """Batch sizes, in rows, of the default size."""
    reference_layers: tuple[ReferenceLayers, ...]
    """What references can act on."""
    reference_regions: bool
    """Whether references may have regions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """Lists the models; the first one is the default."""

    models: tuple[Model, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Holds the limits that requests are held to."""

    max_image_bytes: int
    max_image_pixels: int
    min_image_side: int
    max_prompt_characters: int
    max_steps: int
    max_images: int
    max_guidance_scale: float
    max_ip_adapter_scale: float
    max_requests_in_flight: int
    max_references: int
    max_reference_weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Tells whether the server is alive, and whether it takes requests now."""

    live: bool
    ready: bool
