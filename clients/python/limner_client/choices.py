"""The closed sets of values that requests and responses use, as strings."""

from enum import StrEnum


class Sampler(StrEnum):
    """Integrates the noise away; each equals the diffusers scheduler of the same name."""

    DDIM = "ddim"
    EULER = "euler"
    EULER_ANCESTRAL = "euler_ancestral"
    DPMPP_2M = "dpmpp_2m"
    DPMPP_2M_KARRAS = "dpmpp_2m_karras"
    UNIPC = "unipc"
    LCM = "lcm"
    UNKNOWN = "unknown"
    """A newer server's value that this client does not know yet."""


class ImageFormat(StrEnum):
    """Names the encoding of a picture."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"
    UNKNOWN = "unknown"
    """A newer server's value that this client does not know yet."""

    @property
    def suffix(self) -> str:
        """Give the usual file suffix, with its dot."""
        return {ImageFormat.JPEG: ".jpg", ImageFormat.UNKNOWN: ".bin"}.get(self, f".{self.value}")


class ReferenceLayers(StrEnum):
    """Names the layers of the UNet that references act on; `Model.reference_layers` has those that a model takes."""

    ALL = "all"
    """Identity, style and layout."""
    STYLE = "style"
    """How the reference looks, and neither its content nor its layout."""
    LAYOUT = "layout"
    """How the reference is composed."""
    STYLE_AND_LAYOUT = "style_and_layout"
    UNKNOWN = "unknown"
    """A newer server's value that this client does not know yet."""


class Priority(StrEnum):
    """Decides who goes first when the engine is full."""

    INTERACTIVE = "interactive"
    """For a person who waits."""
    BATCH = "batch"
    """Gives way to interactive work between steps and loses nothing by it."""


class CacheOutcome(StrEnum):
    """Tells where a reference's embedding came from."""

    HIT = "hit"
    """It was in the server's cache."""
    MISS = "miss"
    """It was encoded for this request."""
    COALESCED = "coalesced"
    """Another request was encoding it already, and this one waited for that."""
    UNKNOWN = "unknown"
    """A newer server's value that this client does not know yet."""


class WarningCode(StrEnum):
    """Says what a warning is about; stable, so branch on it."""

    PROMPT_TRUNCATED = "prompt_truncated"
    REFERENCE_SMALL = "reference_small"
    REFERENCE_BLURRED = "reference_blurred"
    REFERENCE_LOW_CONTRAST = "reference_low_contrast"
    REFERENCE_COMPRESSED = "reference_compressed"
    REFERENCE_FILTERED = "reference_filtered"
    REFERENCE_EXTREME_ASPECT = "reference_extreme_aspect"
    GUIDANCE_HIGH = "guidance_high"
    NEGATIVE_PROMPT_UNUSED = "negative_prompt_unused"
    REFERENCE_UNUSED = "reference_unused"
    UNKNOWN = "unknown"
    """A newer server's value that this client does not know yet; the message still says it."""
