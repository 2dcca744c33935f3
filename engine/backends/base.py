"""The backend protocol: the few calls through which the engine loop reaches a compiled model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch

from engine.models.regions import WHOLE, Box

LatentShape = tuple[int, int, int]
"""(channels, height / 8, width / 8) of one image's latents."""

MAX_REFERENCES = 4
"""References of one row; every backend has room for so many of its longest adapter's tokens."""


class UnknownAdapterError(ValueError):
    """The model has no adapter of that name."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        if known:
            super().__init__(f"no adapter {name!r}; the model has {', '.join(known)}")
        else:
            super().__init__("this model has no adapter, so it takes no references")


class MixedAdaptersError(ValueError):
    """The references of one row belong to different adapters.

    diffusers sums one attention an adapter; the graph has one attention over all reference tokens.
    """

    def __init__(self, adapters: Sequence[str]) -> None:
        super().__init__(f"references of one row name several adapters: {', '.join(adapters)}")


class BackendStartError(Exception):
    """A backend cannot start here: another start would end the same way."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedPrompt:
    """One prompt as the text encoder returned it; what the prompt cache holds.

    ``embedding`` is ``[tokens, cross_attention_dim]`` on the backend's device, ``pooled`` the ``[width]`` that SDXL
    adds to the time embedding (None for other families). ``dropped`` is the part of the text that did not fit the
    encoder's window (empty when all of it did).
    """

    embedding: torch.Tensor
    dropped: str
    pooled: torch.Tensor | None = None

    def zeroed(self) -> EncodedPrompt:
        """Return zeros of this prompt's shapes: SDXL's negative prompt where a request has none.

        They are the same object again, as a rule: all such rows are conditioned alike.
        """
        return _zeros_of(self)


@lru_cache(maxsize=8)
def _zeros_of(prompt: EncodedPrompt) -> EncodedPrompt:
    pooled = None if prompt.pooled is None else torch.zeros_like(prompt.pooled)
    return EncodedPrompt(embedding=torch.zeros_like(prompt.embedding), dropped="", pooled=pooled)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlacedReference:
    """One reference of a row: ``tokens [t, cross_attention_dim]`` after its adapter's projection.

    ``scales`` has one number for each cross-attention layer, in the order of ``ModelFacts.layer_names``: the request's
    scale times the reference's weight times the layers' preset. They are folded into the values that the slot holds.
    ``region`` is where in the picture it acts, None for everywhere.
    """

    adapter: str
    tokens: torch.Tensor
    scales: tuple[float, ...]
    region: Box | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowConditioning:
    """Everything that one UNet row is conditioned on for its whole life (DESIGN section 1).

    The tokens of several references stand one after the other under one softmax, as diffusers has it for several images
    of one adapter (``ip_adapter_image=[[first, second]]``); hence they are of one adapter. As soon as one of them has a
    region, each has a softmax of its own, as under diffusers' ``ip_adapter_masks``, and those without act everywhere.
    ``size`` is the picture's (height, width) in pixels, None for the model's default. ``guidance_scale`` is read by
    models with ``ModelFacts.guidance_embedded`` alone.
    """

    prompt: EncodedPrompt
    references: tuple[PlacedReference, ...] = ()
    size: tuple[int, int] | None = None
    guidance_scale: float = 1.0

    def __post_init__(self) -> None:
        """Raise ``MixedAdaptersError``."""
        adapters = dict.fromkeys(reference.adapter for reference in self.references)
        if len(adapters) > 1:
            raise MixedAdaptersError(list(adapters))

    @property
    def tokens(self) -> int:
        """Reference tokens of the row, over all of its references."""
        return sum(reference.tokens.shape[0] for reference in self.references)

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The region of each reference; none when no reference has one."""
        if all(reference.region is None for reference in self.references):
            return ()
        return tuple(reference.region or WHOLE for reference in self.references)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterFacts:
    """One adapter of a loaded model.

    ``kind`` is its projection's (``engine.models.adapter``), ``tokens`` what it makes of a picture, ``weights_hash``
    the SHA-256 of all that its tokens depend on: its own file and the image encoder's.
    """

    name: str
    kind: str
    tokens: int
    weights_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a loaded model is and takes; sent to the server when the engine is ready."""

    name: str
    family: str
    """``sd1``, ``sd2`` or ``sdxl``."""
    weights_hash: str
    adapters: tuple[AdapterFacts, ...]
    """The first is the default."""
    layer_names: tuple[str, ...]
    """The UNet's cross-attention layers by module path, in the order in which IP-Adapter files number them."""
    prediction_type: str
    latent_channels: int
    latent_scale: int
    """Pixels a latent cell (8 for every Stable Diffusion VAE)."""
    default_height: int
    default_width: int
    size_multiple: int
    """Height and width must be multiples of this many pixels."""
    min_size: int
    max_size: int
    prompt_tokens: int
    """Length of the text encoder's window, start and end tokens included."""
    reference_size: int
    """Height and width in pixels of the square that the image encoder takes."""
    token_width: int
    preprocessing: str
    """Version of the reference preprocessing with all its parameters; part of the cache key.
    ``engine.models.preprocess.ReferencePreprocessing.parse`` reads it back and applies it (no torch needed)."""
    scheduler_config: dict[str, object]
    default_steps: int | None = None
    """What the model itself states for requests that say nothing (``limner.json``)."""
    default_guidance_scale: float | None = None
    guidance_embedded: bool = False
    """The UNet takes the guidance scale as an input (``time_cond_proj_dim``, LCM): no request has a second row."""
    regions: bool = False
    """The backend that runs it takes references with regions."""
    zero_empty_negative: bool = False
    """A request without a negative prompt has zeros in its place (``force_zeros_for_empty_prompt``, SDXL)."""

    @property
    def layers(self) -> int:
        """Number of cross-attention layers."""
        return len(self.layer_names)

    @property
    def reference_tokens(self) -> int:
        """Tokens that the default adapter makes of a picture; 0 without an adapter."""
        return self.adapters[0].tokens if self.adapters else 0

    @property
    def most_reference_tokens(self) -> int:
        """Tokens that any of the adapters makes of a picture, at most; 0 without an adapter."""
        return max((adapter.tokens for adapter in self.adapters), default=0)

    def adapter(self, name: str = "") -> AdapterFacts:
        """Return an adapter's facts; '' names the default one. Raises ``UnknownAdapterError``."""
        for adapter in self.adapters:
            if name in ("", adapter.name):
                return adapter
        raise UnknownAdapterError(name, [adapter.name for adapter in self.adapters])


class Backend(Protocol):
    """A model on a device. One thread calls it; another one may read its facts and buckets meanwhile, and no more."""

    facts: ModelFacts
    device: torch.device
    unconditional_tokens: Mapping[str, torch.Tensor]
    """By adapter, ``[tokens, token_width]`` f32: what stands in the unconditional row of a guided request for each of
    its references, at the same scales (diffusers' negative image embedding). Empty without an adapter."""

    def buckets(self, shape: LatentShape) -> tuple[int, ...]:
        """Return the batch sizes in rows that this latent shape runs in, ascending."""

    def encode_prompts(self, texts: Sequence[str]) -> list[EncodedPrompt]:
        """Encode texts with the text encoder, in one batch."""

    def encode_images(self, pixels: torch.Tensor, adapter: str | None = None) -> torch.Tensor:
        """Encode references ``[N, S, S, 3]`` uint8 RGB to projected tokens ``[N, tokens, cross_attention_dim]`` f32.

        ``adapter`` None is the default one. Raises ``UnknownAdapterError``.
        """

    def place(self, row: RowConditioning) -> int:
        """Compute the row's cross-attention K/V and write them to a free slot.

        Raises ``SlotsExhaustedError``, ``UnknownAdapterError``, and ``ReferenceTooLongError``.
        A row that has prompt and tokens of one that holds a slot, or held one, need not be computed again: by these
        objects it is known, so they are never changed.
        """

    def release(self, slot: int) -> None:
        """Free a slot. Releasing a slot twice is a bug and raises."""

    def predict_noise(
        self,
        slots: Sequence[int],
        sample: torch.Tensor,
        timestep: torch.Tensor,
        bucket: int,
        images: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """Run one tick: ``sample [R, C, h, w]`` f32 (already input-scaled), ``timestep [R]`` f32, row i conditioned by
        ``slots[i]``, padded to ``bucket`` rows. Return the model's output ``[R, C, h, w]`` f32.

        ``images`` may say which image each row is of: one or two rows of an image have the same latents and timestep,
        so a backend may compute once what depends on nothing else. The result is the same to the bit.
        """

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode finished latents ``[N, C, h, w]`` f32, not yet divided by the scaling factor.

        Returns ``[N, H, W, 3]`` uint8. Raises ``FloatingPointError`` when the decoder gives NaN or infinity.
        """
