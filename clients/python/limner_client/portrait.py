"""A finished portrait: its images, and how they were made."""

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from limner_client.choices import CacheOutcome, ImageFormat, ReferenceLayers, Sampler, WarningCode

if TYPE_CHECKING:
    import PIL.Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """Is one encoded picture; `seed` reproduces it alone."""

    index: int
    data: bytes = field(repr=False)
    format: ImageFormat
    width: int
    height: int
    seed: int

    def save(self, path: str | Path) -> Path:
        """Write the encoded bytes to `path`, or into the folder `path` as `portrait-SEED.SUFFIX`.

        The bytes are not encoded again, so the generation parameters in the file's metadata survive.
        Returns the file's path. Raises OSError.
        """
        target = Path(path)
        if target.is_dir():
            target = target / f"portrait-{self.seed}{self.format.suffix}"
        target.write_bytes(self.data)
        return target

    def to_pil(self) -> "PIL.Image.Image":
        """Decode into a Pillow image; needs the extra `limner-client[pillow]`."""
        import PIL.Image

        return PIL.Image.open(io.BytesIO(self.data))


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Holds the values that were used, defaults filled in."""

    model: str
    sampler: Sampler
    steps: int
    guidance_scale: float
    guidance_rescale: float
    guidance_start: float
    guidance_end: float
    ip_adapter_scale: float
    width: int
    height: int
    seed: int
    deterministic: bool
    prompt: str
    """The part of the prompt that the text encoder saw."""
    adapter: str
    """What the references went through; empty without one."""
    reference_layers: ReferenceLayers | None
    """What the references acted on; None without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceUse:
    """Tells which reference was used, and where its embedding came from."""

    digest: str
    cache_outcome: CacheOutcome
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Tells where the time went, in seconds; see `Timings` in limner/v1/portrait.proto."""

    decode_input_seconds: float
    reference_seconds: float
    queue_seconds: float
    encode_prompt_seconds: float
    denoise_seconds: float
    decode_latents_seconds: float
    encode_output_seconds: float
    total_seconds: float
    mean_batch_rows: float
    """Mean number of useful rows in the UNet calls that this portrait ran in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortraitWarning:
    """Says what may have spoilt the portrait, and what to do about it."""

    code: WarningCode
    field: str
    message: str
    action: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Portrait:
    """Is a finished portrait: its images in order, and how they were made."""

    task_id: str
    """Identifies the generation in the server's log and in the pictures' metadata."""
    request_id: str
    """Identifies the call in the server's log."""
    images: tuple[Image, ...]
    parameters: Parameters
    reference: ReferenceUse | None
    """The first of `references`."""
    references: tuple[ReferenceUse, ...]
    timings: Timings
    warnings: tuple[PortraitWarning, ...]
    upload_outcome: CacheOutcome | None = None
    """What became of the reference when this call had to upload it first; None when it did not. Of several uploads, a
    miss if any was one."""

    @property
    def image(self) -> Image:
        """Give the first image."""
        return self.images[0]

    @property
    def seed(self) -> int:
        """Give the seed of the first image."""
        return self.parameters.seed

    @property
    def cache_outcome(self) -> CacheOutcome | None:
        """Tell how the server had the reference's embedding when this call came; None without a reference.

        A call that uploads the picture finds the embedding there afterwards, which `reference` says; what the
        call met, and had to pay for, is the upload's outcome.
        """
        if self.upload_outcome is not None:
            return self.upload_outcome
        return self.reference.cache_outcome if self.reference else None
