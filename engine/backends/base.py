"""The backend protocol: the few calls through which the engine loop reaches a compiled model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

LatentShape = tuple[int, int, int]
"""(channels, height / 8, width / 8) of one image's latents."""


class BackendStartError(Exception):
    """A backend cannot start here: another start would end the same way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedPrompt:
    """One prompt as the text encoder returned it; what the prompt cache holds.

    ``embedding`` is ``[tokens, cross_attention_dim]`` on the backend's device. ``dropped`` is the part of the
    text that did not fit the encoder's window (empty when all of it did).
    """

    embedding: torch.Tensor
    dropped: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RowConditioning:
    """Everything that one UNet row is conditioned on for its whole life (DESIGN section 1).

    ``reference_tokens`` is ``[tokens, cross_attention_dim]`` after the adapter's projection, or None for a row
    without a reference. ``scale`` is the adapter's scale, folded into the values that the slot holds.
    """

    prompt: EncodedPrompt
    reference_tokens: torch.Tensor | None = None
    scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a loaded model is and takes; sent to the server when the engine is ready."""

    name: str
    family: str
    weights_hash: str
    adapters: tuple[str, ...]
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
    reference_tokens: int
    token_width: int
    preprocessing: str
    """Version of the reference preprocessing with all its parameters; part of the cache key.
    ``engine.models.preprocess.ReferencePreprocessing.parse`` reads it back and applies it (no torch needed)."""
    scheduler_config: dict[str, object]
    default_steps: int | None = None
    """What the model itself states for requests that say nothing (``limner.json``)."""
    default_guidance_scale: float | None = None


class Backend(Protocol):
    """A model on a device. One thread calls it; nothing in it is safe to share between threads."""

    facts: ModelFacts
    device: torch.device
    unconditional_tokens: torch.Tensor | None
    """``[tokens, token_width]`` f32: the reference tokens of the unconditional row of a guided request that has a
    reference (diffusers' negative image embedding). Place it with the request's scale. None without an adapter."""

    def buckets(self, shape: LatentShape) -> tuple[int, ...]:
        """Return the batch sizes in rows that this latent shape runs in, ascending."""

    def encode_prompts(self, texts: Sequence[str]) -> list[EncodedPrompt]:
        """Encode texts with the text encoder, in one batch."""

    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode references ``[N, S, S, 3]`` uint8 RGB to projected tokens ``[N, tokens, cross_attention_dim]`` f32."""

    def place(self, row: RowConditioning) -> int:
        """Compute the row's cross-attention K/V and write them to a free slot. Raises ``SlotsExhaustedError``.

        A row that holds a slot already (the same object, as for the other images of a job) need not be computed again.
        """

    def release(self, slot: int) -> None:
        """Free a slot. Releasing a slot twice is a bug and raises."""

    def predict_noise(
        self, slots: Sequence[int], sample: torch.Tensor, timestep: torch.Tensor, bucket: int
    ) -> torch.Tensor:
        """Run one tick: ``sample [R, C, h, w]`` f32 (already input-scaled), ``timestep [R]`` f32, row i conditioned by
        ``slots[i]``, padded to ``bucket`` rows. Return the model's output ``[R, C, h, w]`` f32.
        """

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode finished latents ``[N, C, h, w]`` f32, not yet divided by the scaling factor.

        Returns ``[N, H, W, 3]`` uint8. Raises ``FloatingPointError`` when the decoder gives NaN or infinity.
        """
