"""The torch backend: the reference arithmetic, and fast enough on a CPU to serve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from engine.backends.base import EncodedPrompt, LatentShape, ModelFacts, RowConditioning
from engine.backends.packed_decoder import pack_decoder
from engine.backends.packed_unet import pack_unet
from engine.backends.slots import SlotBuffers
from engine.backends.slotted import SlottedRows
from engine.models.model import Model

Network = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor
]


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchSettings:
    """What may be chosen about the torch backend.

    ``max_references`` bounds the references of one row; ``packed`` asks for weights packed for the CPU (docs/adr/0004),
    with which the result differs from diffusers' in the last bits of f32 and is about twice as fast.
    """

    buckets: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 12, 16)
    capacity: int = 64
    max_references: int = 1
    packed: bool = True

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for settings that cannot hold."""
        if not self.buckets or min(self.buckets) < 1 or self.max_references < 1:
            raise ValueError("buckets and max_references must be positive")
        if self.capacity < max(self.buckets):
            raise ValueError(f"capacity {self.capacity} is less than the largest bucket {max(self.buckets)}")


class TorchBackend:
    """``engine.backends.base.Backend`` on torch, in the type that the model was loaded in."""

    def __init__(self, model: Model, settings: TorchSettings | None = None) -> None:
        settings = settings or TorchSettings()
        # Not the model itself: once packed, its UNet may be freed.
        self._prompts = model.prompts
        self._image_encoder = model.image_encoder
        self._adapter = model.adapter
        self._text_kv = model.text_kv
        self.facts: ModelFacts = model.facts
        self.device = torch.device("cpu")
        self.unconditional_tokens = model.unconditional_tokens
        self._buckets = tuple(sorted(settings.buckets))
        self._dtype = model.text_kv.weight.dtype
        slots = SlotBuffers(
            capacity=settings.capacity,
            text_tokens=model.facts.prompt_tokens,
            ip_tokens=max(1, model.facts.reference_tokens * settings.max_references),
            width=model.unet.width,
            masked=settings.max_references > 1,
            dtype=self._dtype,
        )
        self._rows = SlottedRows(slots, self._buckets[-1], self._project)
        packed_unet = packed_decoder = None
        if settings.packed:
            height, width = (
                size // model.facts.latent_scale
                for size in (model.facts.default_height, model.facts.default_width)
            )
            packed_unet = pack_unet(model.unet, min(8, self._buckets[-1]), height, width)
            packed_decoder = pack_decoder(model.decoder, height, width)
        self._network: Network = packed_unet or model.unet
        self._decoder = packed_decoder or model.decoder

    def buckets(self, shape: LatentShape) -> tuple[int, ...]:
        """Return the batch sizes in rows; the same for every shape."""
        return self._buckets

    def encode_prompts(self, texts: Sequence[str]) -> list[EncodedPrompt]:
        """Encode texts in one batch."""
        return self._prompts.encode(texts)

    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode references ``[N, S, S, 3]`` uint8 to ``[N, tokens, E]`` f32.

        Raises ``ValueError`` for a model without an adapter.
        """
        if self._image_encoder is None or self._adapter is None:
            raise ValueError("this model has no adapter, so it takes no references")
        return self._image_encoder.encode(pixels, self._adapter)

    def place(self, row: RowConditioning) -> int:
        """Place a row; see ``SlottedRows.place``. Raises ``ValueError`` for tokens without an adapter."""
        return self._rows.place(row)

    def release(self, slot: int) -> None:
        """Free a slot. Raises ``SlotError`` if it is not taken."""
        self._rows.release(slot)

    def predict_noise(
        self, slots: Sequence[int], sample: torch.Tensor, timestep: torch.Tensor, bucket: int
    ) -> torch.Tensor:
        """Run one tick; see ``Backend.predict_noise`` and, for what it raises, ``SlottedRows.batch``."""
        with torch.inference_mode():
            batch = self._rows.batch(slots, sample, timestep, bucket)
            noise = self._network(
                batch.sample.to(self._dtype), batch.timestep, batch.kv_text, batch.kv_ip, batch.ip_mask
            )
            return batch.rows_of(noise.float())

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode ``[N, C, h, w]`` f32 to ``[N, H, W, 3]`` uint8."""
        return self._decoder.decode(latents)

    def _project(self, row: RowConditioning) -> tuple[torch.Tensor, torch.Tensor | None]:
        kv_ip = None
        if row.reference_tokens is not None:
            if self._adapter is None:
                raise ValueError("this model has no adapter, so it takes no references")
            kv_ip = self._adapter.kv.project(row.reference_tokens, row.scale)
        return self._text_kv.project(row.prompt.embedding), kv_ip
