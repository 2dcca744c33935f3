"""The compiled backend: an export, run by whatever runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from engine.backends.base import (
    EncodedPrompt,
    LatentShape,
    ModelFacts,
    PlacedReference,
    RowConditioning,
)
from engine.backends.compiled.graphs import Graphs
from engine.backends.compiled.prompts import PromptGraphs
from engine.backends.compiled.runtime import Runtime
from engine.backends.compiled.sharing import SharedTrunk
from engine.backends.slots import SlotBuffers
from engine.backends.slotted import RowProjection, SlotSettings, SlottedRows
from engine.export.directory import ExportDirectory
from engine.export.manifest import REGIONAL, AdapterEntry, region_input
from engine.models.image_encoder import normalise
from engine.models.projection import scale_values
from engine.models.regions import level_masks
from engine.models.vae import to_uint8

LARGEST_SHARED_BYTES = 256 << 20
"""Weights of an exported UNet, at most, for a second graph for rows that share a trunk: it holds them once more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledSettings(SlotSettings):
    """What may be chosen about a compiled backend.

    Each bucket is a compiled UNet of its own, with its own packed weights, so there are few: a guided image takes two
    rows, and beyond eight a CPU gains little (docs/benchmarks.md has the figures).
    """

    buckets: tuple[int, ...] = (2, 8)


class CompiledBackend:
    """``engine.backends.base.Backend`` on an export.

    At the model's own size the UNet is compiled for each bucket; all other sizes share one graph whose dimensions are
    dynamic. Encoders and decoder run item by item, so no last bit depends on what else is in a batch.
    """

    def __init__(
        self, export: ExportDirectory, runtime: Runtime, settings: CompiledSettings | None = None
    ) -> None:
        settings = settings or CompiledSettings()
        manifest = export.manifest
        self.facts: ModelFacts = replace(manifest.facts, regions=REGIONAL in manifest.graphs)
        self.device = runtime.device
        self.runtime = runtime
        self._manifest = manifest
        # Of the UNet one for each bucket, one whose rows share a trunk, one with dynamic dimensions.
        self._graphs = Graphs(export, runtime, kept=len(settings.buckets) + 2)
        self._prompts = PromptGraphs(export, self._graphs)
        self._adapters = {adapter.name: adapter for adapter in manifest.adapters}
        self.unconditional_tokens: Mapping[str, torch.Tensor] = export.unconditional_tokens()
        self._buckets = tuple(sorted(settings.buckets))
        scale = self.facts.latent_scale
        size = (self.facts.default_height, self.facts.default_width)
        height, width = manifest.size or size
        self._size = (height // scale, width // scale)
        self._narrow = max(1, self.facts.most_reference_tokens)
        # With added conditioning (SDXL) the timestep's embedding is each row's own, and so is what follows.
        weights = sum(file.bytes for file in manifest.graphs["unet"].files)
        share = weights <= LARGEST_SHARED_BYTES and not manifest.added.widths()
        # The largest bucket alone: it is what a full engine runs, and each would hold the weights once more.
        largest = self._buckets[-1]
        self._sharing = SharedTrunk(self._graphs, largest, runtime.pairs(largest) if share else ())
        added = manifest.added
        kv = manifest.graphs["unet"].inputs[2]
        slots = SlotBuffers(
            capacity=settings.capacity,
            text_tokens=self.facts.prompt_tokens,
            ip_tokens=self._narrow * settings.max_references,
            width=manifest.width,
            masked=True,
            dtype=getattr(torch, kv.dtype),
            vectors=added.widths(),
        )
        projection = RowProjection(
            text=lambda prompt: self._kv("text_kv", embedding=prompt.embedding),
            reference=self._project,
            adapters=self._adapters,
            vectors=lambda row: added.vectors(row, size),
        )
        levels = sorted({layer.level for layer in manifest.columns})
        self._rows = SlottedRows(
            slots,
            self._buckets[-1],
            projection,
            masks=(lambda row: level_masks(row.boxes, row.size or size, scale, levels))
            if self.facts.regions
            else None,
        )
        self._prepare()

    def buckets(self, shape: LatentShape) -> tuple[int, ...]:
        """Return the batch sizes in rows; the same for every shape."""
        return self._buckets

    def encode_prompts(self, texts: Sequence[str]) -> list[EncodedPrompt]:
        """Encode texts, one after the other."""
        return self._prompts.encode(texts)

    def encode_images(self, pixels: torch.Tensor, adapter: str | None = None) -> torch.Tensor:
        """Encode references ``[N, S, S, 3]`` uint8 to ``[N, tokens, E]`` f32; equal pictures are encoded once.

        Raises ``UnknownAdapterError``.
        """
        entry = self._adapters[self.facts.adapter(adapter or "").name]
        mean, std = torch.tensor(entry.image.mean), torch.tensor(entry.image.std)
        normal = normalise(pixels, self.facts.reference_size, mean, std)
        # The engine pads its batches with black pictures.
        encoded: dict[bytes, torch.Tensor] = {}
        rows: list[torch.Tensor] = []
        for picture, row in zip(pixels, normal.split(1), strict=True):
            key = picture.numpy().tobytes()
            if key not in encoded:
                encoded[key] = self._tokens(row, entry)
            rows.append(encoded[key])
        return torch.cat(rows)

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
        groups = self._rows.by_width(slots, self._narrow)
        with torch.inference_mode():
            if len(groups) == 1:
                return self._run(slots, sample, timestep, bucket, images)
            noise = torch.empty_like(sample)
            for group in groups:
                least = min((size for size in self._buckets if size >= len(group)), default=bucket)
                own = None if images is None else [images[row] for row in group]
                noise[group] = self._run(
                    [slots[row] for row in group], sample[group], timestep[group], least, own
                )
            return noise

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode ``[N, C, h, w]`` f32 to ``[N, H, W, 3]`` uint8, image by image."""
        dynamic = tuple(latents.shape[2:]) != self._size
        scaled = latents / self._manifest.scaling_factor
        return torch.cat(
            [
                to_uint8(self._graphs.run("vae_decoder", {"latents": image}, dynamic=dynamic)["pixels"])
                for image in scaled.split(1)
            ]
        )

    def _prepare(self) -> None:
        """Compile what warm-up does not reach: a first request must not wait for it."""
        facts = self.facts
        embedding = (1, facts.prompt_tokens, facts.token_width)
        self._graphs.compiled("text_kv", {"embedding": embedding})
        for adapter in facts.adapters:
            tokens = (1, adapter.tokens, facts.token_width)
            self._graphs.compiled(f"adapters/{adapter.name}_kv", {"tokens": tokens})

    def _run(
        self,
        slots: Sequence[int],
        sample: torch.Tensor,
        timestep: torch.Tensor,
        bucket: int,
        images: Sequence[int] | None,
    ) -> torch.Tensor:
        """Run rows of one width: of at most one reference, or of more, for which one graph has dynamic dimensions.

        Rows with regions have a graph of their own, with dynamic dimensions too.
        """
        regions = self._rows.regions(slots[0])
        wide = self._rows.slots.tokens[slots[0]] > self._narrow
        dynamic = wide or bucket not in self._buckets or tuple(sample.shape[2:]) != self._size
        units = [] if dynamic or regions is not None else self._sharing.units(images, bucket)
        seats = self._sharing.seats if units else ()
        batch = self._rows.batch(slots, sample, timestep, bucket, seats=seats, units=units)
        if regions is not None:
            tokens = batch.tokens[0]
            masks = self._rows.region_masks(slots, batch.places, bucket)
            inputs = {
                "sample": batch.sample,
                "timestep": batch.timestep,
                "kv_text": batch.kv_text,
                "kv_ip": batch.kv_ip[:, :tokens].unflatten(1, (regions.references, -1)),
                **{region_input(level): mask for level, mask in masks.items()},
                **batch.vectors,
            }
            return batch.rows_of(self._graphs.run(REGIONAL, inputs, dynamic=True)["noise"].float())
        assert batch.ip_mask is not None
        width = batch.kv_ip.shape[1] if wide else self._narrow
        inputs = {
            "sample": batch.sample,
            "timestep": batch.timestep,
            "kv_text": batch.kv_text,
            "kv_ip": batch.kv_ip[:, :width],
            "ip_mask": batch.ip_mask[:, :width],
            **batch.vectors,
        }
        paired = not dynamic and self._sharing.paired(bucket, units, inputs)
        noise = self._graphs.run("unet", inputs, rows=batch.held, dynamic=dynamic, paired=paired)["noise"]
        return batch.rows_of(noise.float())

    def _tokens(self, pixels: torch.Tensor, adapter: AdapterEntry) -> torch.Tensor:
        features = self._graphs.run(adapter.encoder, {"pixels": pixels})[adapter.features]
        return self._graphs.run(f"adapters/{adapter.name}", {"features": features})["tokens"].float()

    def _project(self, reference: PlacedReference) -> torch.Tensor:
        kv = self._kv(f"adapters/{reference.adapter}_kv", tokens=reference.tokens)
        scale_values(kv, self._manifest.columns, reference.scales)
        return kv

    def _kv(self, graph: str, **given: torch.Tensor) -> torch.Tensor:
        one = {name: tensor.unsqueeze(0) for name, tensor in given.items()}
        return self._graphs.run(graph, one)["kv"][0]
