"""The compiled backend: an export, run by whatever runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from engine.backends.base import EncodedPrompt, LatentShape, ModelFacts, RowConditioning
from engine.backends.compiled.graphs import Graphs
from engine.backends.compiled.prompts import PromptTokenizer
from engine.backends.compiled.runtime import Runtime
from engine.backends.slots import SlotBuffers
from engine.backends.slotted import SlottedRows
from engine.export.directory import ExportDirectory
from engine.export.manifest import AdapterEntry
from engine.models.image_encoder import normalise
from engine.models.vae import to_uint8


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledSettings:
    """What may be chosen about a compiled backend. ``max_references`` bounds the references of one row.

    Each bucket is a compiled UNet of its own, with its own packed weights, so there are few: a guided image takes two
    rows, and beyond eight a CPU gains nothing (docs/backends.md has the figures).
    """

    buckets: tuple[int, ...] = (2, 4, 8)
    capacity: int = 64
    max_references: int = 1

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for settings that cannot hold."""
        if not self.buckets or min(self.buckets) < 1 or self.max_references < 1:
            raise ValueError("buckets and max_references must be positive")
        if self.capacity < max(self.buckets):
            raise ValueError(f"capacity {self.capacity} is less than the largest bucket {max(self.buckets)}")


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
        self.facts: ModelFacts = manifest.facts
        self.device = runtime.device
        self.runtime = runtime
        self._manifest = manifest
        self._graphs = Graphs(export, runtime)
        self._tokenizer = PromptTokenizer(export)
        self._adapter: AdapterEntry | None = next(iter(manifest.adapters), None)
        unconditional = export.unconditional_tokens()
        self.unconditional_tokens = None if self._adapter is None else unconditional[self._adapter.name]
        self._buckets = tuple(sorted(settings.buckets))
        scale = self.facts.latent_scale
        height, width = manifest.size or (self.facts.default_height, self.facts.default_width)
        self._size = (height // scale, width // scale)
        kv = manifest.graphs["unet"].inputs[2]
        slots = SlotBuffers(
            capacity=settings.capacity,
            text_tokens=self.facts.prompt_tokens,
            ip_tokens=max(1, self.facts.reference_tokens * settings.max_references),
            width=manifest.width,
            masked=True,
            dtype=getattr(torch, kv.dtype),
        )
        self._rows = SlottedRows(slots, self._buckets[-1], self._project)
        self._prepare()

    def buckets(self, shape: LatentShape) -> tuple[int, ...]:
        """Return the batch sizes in rows; the same for every shape."""
        return self._buckets

    def encode_prompts(self, texts: Sequence[str]) -> list[EncodedPrompt]:
        """Encode texts, one after the other."""
        ids, dropped = self._tokenizer.encode(texts)
        return [
            EncodedPrompt(
                embedding=self._graphs.run("text_encoder", {"input_ids": row})["hidden"][0].float(),
                dropped=text,
            )
            for row, text in zip(ids.split(1), dropped, strict=True)
        ]

    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode references ``[N, S, S, 3]`` uint8 to ``[N, tokens, E]`` f32; equal pictures are encoded once.

        Raises ``ValueError`` for a model without an adapter.
        """
        image = self._manifest.image
        if image is None or self._adapter is None:
            raise ValueError("this model has no adapter, so it takes no references")
        mean, std = torch.tensor(image.mean), torch.tensor(image.std)
        normal = normalise(pixels, self.facts.reference_size, mean, std)
        # The engine pads its batches with black pictures.
        encoded: dict[bytes, torch.Tensor] = {}
        rows: list[torch.Tensor] = []
        for picture, row in zip(pixels, normal.split(1), strict=True):
            key = picture.numpy().tobytes()
            if key not in encoded:
                encoded[key] = self._tokens(row, self._adapter)
            rows.append(encoded[key])
        return torch.cat(rows)

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
            assert batch.ip_mask is not None
            inputs = {
                "sample": batch.sample,
                "timestep": batch.timestep,
                "kv_text": batch.kv_text,
                "kv_ip": batch.kv_ip,
                "ip_mask": batch.ip_mask,
            }
            dynamic = bucket not in self._buckets or tuple(sample.shape[2:]) != self._size
            noise = self._graphs.run("unet", inputs, dynamic=dynamic)["noise"]
            return batch.rows_of(noise.float())

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
        if self._adapter is not None:
            tokens = (1, facts.reference_tokens, facts.token_width)
            self._graphs.compiled(f"adapters/{self._adapter.name}_kv", {"tokens": tokens})

    def _tokens(self, pixels: torch.Tensor, adapter: AdapterEntry) -> torch.Tensor:
        features = self._graphs.run("image_encoder", {"pixels": pixels})[adapter.features]
        return self._graphs.run(f"adapters/{adapter.name}", {"features": features})["tokens"].float()

    def _project(self, row: RowConditioning) -> tuple[torch.Tensor, torch.Tensor | None]:
        text = self._graphs.run("text_kv", {"embedding": row.prompt.embedding.unsqueeze(0)})["kv"][0]
        if row.reference_tokens is None:
            return text, None
        if self._adapter is None:
            raise ValueError("this model has no adapter, so it takes no references")
        name = f"adapters/{self._adapter.name}_kv"
        image = self._graphs.run(name, {"tokens": row.reference_tokens.unsqueeze(0)})["kv"][0]
        for layer in self._manifest.columns:
            image[:, layer.start + layer.width : layer.end] *= row.scale
        return text, image
