"""The torch backend: the reference arithmetic, and fast enough on a CPU to serve."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from engine.backends.base import (
    EncodedPrompt,
    LatentShape,
    ModelFacts,
    PlacedReference,
    RowConditioning,
)
from engine.backends.packed.decoder import pack_decoder
from engine.backends.packed.unet import pack_unet
from engine.backends.slots import SlotBuffers
from engine.backends.slotted import RowBatch, RowProjection, SlotSettings, SlottedRows
from engine.models.attention import ReferenceSpan
from engine.models.model import Model
from engine.models.regions import level_masks

Network = Callable[..., torch.Tensor]
"""``ConditionedUNet.forward``, or what stands for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchSettings(SlotSettings):
    """What may be chosen about the torch backend.

    ``packed`` asks for weights packed for the CPU (docs/adr/0004), with which the result differs from diffusers' in the
    last bits of f32 and is about twice as fast.
    """

    buckets: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 12, 16)
    packed: bool = True


class TorchBackend:
    """``engine.backends.base.Backend`` on torch, in the type that the model was loaded in."""

    def __init__(self, model: Model, settings: TorchSettings | None = None) -> None:
        settings = settings or TorchSettings()
        # Not the model itself: once packed, its UNet may be freed.
        self._prompts = model.prompts
        self._adapters = model.adapters
        self._text_kv = model.text_kv
        self.facts: ModelFacts = replace(model.facts, regions=True)
        self.device = torch.device("cpu")
        self.unconditional_tokens: Mapping[str, torch.Tensor] = model.unconditional_tokens
        self._buckets = tuple(sorted(settings.buckets))
        self._dtype = model.text_kv.weight.dtype
        added, size = model.unet.added, (model.facts.default_height, model.facts.default_width)
        slots = SlotBuffers(
            capacity=settings.capacity,
            text_tokens=model.facts.prompt_tokens,
            ip_tokens=max(1, model.facts.most_reference_tokens * settings.max_references),
            width=model.unet.width,
            masked=False,
            dtype=self._dtype,
            vectors=added.widths(),
        )
        projection = RowProjection(
            text=lambda prompt: self._text_kv.project(prompt.embedding),
            reference=self._project,
            adapters=self._adapters,
            vectors=lambda row: added.vectors(row, size),
        )
        levels, scale = model.unet.levels, model.facts.latent_scale
        self._rows = SlottedRows(
            slots,
            self._buckets[-1],
            projection,
            masks=lambda row: level_masks(row.boxes, row.size or size, scale, levels),
        )
        packed_unet = packed_decoder = None
        if settings.packed:
            height, width = (side // model.facts.latent_scale for side in size)
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

    def encode_images(self, pixels: torch.Tensor, adapter: str | None = None) -> torch.Tensor:
        """Encode references ``[N, S, S, 3]`` uint8 to ``[N, tokens, E]`` f32. Raises ``UnknownAdapterError``."""
        return self._adapters[self.facts.adapter(adapter or "").name].encode(pixels)

    def place(self, row: RowConditioning) -> int:
        """Place a row; see ``SlottedRows.place``. Raises ``UnknownAdapterError``."""
        return self._rows.place(row)

    def release(self, slot: int) -> None:
        """Free a slot. Raises ``SlotError`` if it is not taken."""
        self._rows.release(slot)

    def predict_noise(
        self,
        slots: Sequence[int],
        sample: torch.Tensor,
        timestep: torch.Tensor,
        bucket: int,
        images: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """Run one tick; see ``Backend.predict_noise`` and, for what it raises, ``SlottedRows.batch``."""
        with torch.inference_mode():
            batch = self._rows.batch(slots, sample, timestep, bucket)
            kv_ip, spans = self._references(slots, batch)
            noise = self._network(
                batch.sample.to(self._dtype),
                batch.timestep,
                batch.kv_text,
                kv_ip,
                spans=spans,
                **batch.vectors,
            )
            return batch.rows_of(noise.float())

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode ``[N, C, h, w]`` f32 to ``[N, H, W, 3]`` uint8."""
        return self._decoder.decode(latents)

    def _references(
        self, slots: Sequence[int], batch: RowBatch
    ) -> tuple[torch.Tensor, tuple[ReferenceSpan, ...]]:
        """Return the tick's reference K/V as wide as its rows have tokens, and spans where they differ in that.

        Rows without a reference fit any width: their values are zero. Rows with regions are a span in any case.
        """
        alike: dict[tuple[int, int], list[int]] = {}
        for index, (slot, tokens) in enumerate(zip(slots, batch.tokens, strict=True)):
            regions = self._rows.regions(slot)
            if tokens:
                alike.setdefault((tokens, regions.references if regions else 0), []).append(index)
        width = max((tokens for tokens, _ in alike), default=max(1, self.facts.reference_tokens))
        spans: list[ReferenceSpan] = []
        if len(alike) > 1 or any(references for _, references in alike):
            for (tokens, references), indices in alike.items():
                rows = [batch.places[index] for index in indices]
                packed, masks = batch.kv_ip[rows, :tokens], None
                if references:
                    packed = packed.unflatten(1, (references, tokens // references))
                    asked = [slots[index] for index in indices]
                    masks = self._rows.region_masks(asked, range(len(rows)), len(rows))
                spans.append(ReferenceSpan(torch.tensor(rows), packed, masks))
        return batch.kv_ip[:, :width], tuple(spans)

    def _project(self, reference: PlacedReference) -> torch.Tensor:
        return self._adapters[reference.adapter].kv.project(reference.tokens, reference.scales)
