"""A backend on a GPU: encoders and decoder through torch, the UNet through programs over tensors that never move."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple, Protocol

import torch

from engine.backends.base import (
    MAX_REFERENCES,
    EncodedPrompt,
    LatentShape,
    ModelFacts,
    PlacedReference,
    RowConditioning,
)
from engine.backends.device.stream import CapturedCall
from engine.backends.slots import SlotBuffers, Staging, single_seats
from engine.backends.slotted import RowProjection, SlottedRows
from engine.models.model import Model

PROGRAMS = 32
"""Programs kept, of all buckets and sizes; each holds its graph's memory. The least recently used goes first."""

INDICES = 64
"""Lists of places that are kept on the device, where a batch stays for many ticks and an upload waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchInputs:
    """What a program reads, at addresses that never change; the first axis is the bucket.

    ``sample [B, C, h, w]`` and ``timestep [B]`` (f32) are written before each run, ``kv_text [B, T, D]``,
    ``kv_ip [B, T_ip, D]`` and ``ip_mask [B, T_ip]`` (None where every row brings the same number of tokens) when a row
    joins the batch. SDXL takes ``text_embeds [B, P]`` and ``time_ids [B, 6]`` too, LCM ``timestep_cond [B, W]``.
    """

    sample: torch.Tensor
    timestep: torch.Tensor
    kv_text: torch.Tensor
    kv_ip: torch.Tensor
    ip_mask: torch.Tensor | None
    text_embeds: torch.Tensor | None = None
    time_ids: torch.Tensor | None = None
    timestep_cond: torch.Tensor | None = None
    """f32, as the two before it."""

    def named(self) -> dict[str, torch.Tensor]:
        """Return the tensors that are there, by the graph's names."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: tensor for name, tensor in named.items() if tensor is not None}


class Program(Protocol):
    """The UNet for one bucket and one latent shape."""

    call: CapturedCall

    def __call__(self) -> torch.Tensor:
        """Run over the inputs it was made with; return ``[B, C, h, w]``, valid until the next run of any program."""


class ProgramKey(NamedTuple):
    """What a program is for: rows, latents, and room for so many reference tokens."""

    bucket: int
    shape: LatentShape
    width: int


class Programs(Protocol):
    """Makes programs, and says what they take."""

    dtype: torch.dtype
    """Type of the latents, of the K/V and of the mask."""

    one_width: bool
    """Whether every program has room for all references and takes a mask; otherwise rows of at most one reference run
    in narrower programs of their own, without a mask where all adapters bring the same number of tokens."""

    def buckets(self, shape: LatentShape) -> tuple[int, ...]:
        """Return the batch sizes for this latent shape, ascending; none where it cannot run."""

    def program(self, inputs: BatchInputs) -> Program:
        """Make the program for these inputs."""


class DeviceBackend:
    """``engine.backends.base.Backend`` on a GPU.

    Rows are gathered in a staging area with one address for every bucket, because a CUDA graph and a TensorRT binding
    hold addresses. Only rows that are new to the batch are copied there; a tick moves latents and timesteps. Where rows
    of one reference have programs of their own (``Programs.one_width``), a tick of both kinds runs twice in its bucket:
    what a row gives depends on the bucket and on itself, to the bit.
    """

    def __init__(
        self,
        model: Model,
        programs: Programs,
        *,
        device: torch.device,
        capacity: int,
        max_references: int = MAX_REFERENCES,
    ) -> None:
        self._prompts = model.prompts
        self._adapters = model.adapters
        self._text_kv = model.text_kv
        self._decoder = model.decoder
        self._programs = programs
        self.facts: ModelFacts = model.facts
        self.device = device
        self.unconditional_tokens: Mapping[str, torch.Tensor] = model.unconditional_tokens
        facts = model.facts
        scale = facts.latent_scale
        self._default: LatentShape = (
            facts.latent_channels,
            facts.default_height // scale,
            facts.default_width // scale,
        )
        largest = programs.buckets(self._default)[-1]
        if capacity < largest:
            raise ValueError(f"capacity {capacity} is less than the largest bucket {largest}")
        one = max(1, facts.most_reference_tokens)
        room = one * max_references
        added, size = model.unet.added, (facts.default_height, facts.default_width)
        slots = SlotBuffers(
            capacity=capacity,
            text_tokens=facts.prompt_tokens,
            ip_tokens=room,
            width=model.text_kv.weight.shape[0],
            masked=True,
            dtype=programs.dtype,
            vectors=added.widths(),
            device=device,
        )
        projection = RowProjection(
            text=lambda prompt: self._text_kv.project(prompt.embedding.to(device)),
            reference=self._project,
            adapters=self._adapters,
            vectors=lambda row: added.vectors(row, size),
        )
        self._rows = SlottedRows(slots, largest, projection)
        self._narrow = room if programs.one_width else one
        self._unmasked = not programs.one_width and len({at.tokens for at in facts.adapters}) < 2
        self._largest = largest
        self._stagings: dict[int, Staging] = {}
        self._ready: OrderedDict[ProgramKey, tuple[BatchInputs, Program]] = OrderedDict()
        self._indices: OrderedDict[tuple[int, ...], torch.Tensor] = OrderedDict()

    def buckets(self, shape: LatentShape) -> tuple[int, ...]:
        """Return the batch sizes in rows that this latent shape runs in; none where it cannot run."""
        return self._programs.buckets(shape)

    def encode_prompts(self, texts: Sequence[str]) -> list[EncodedPrompt]:
        """Encode texts in one batch."""
        return self._prompts.encode(texts)

    def encode_images(self, pixels: torch.Tensor, adapter: str | None = None) -> torch.Tensor:
        """Encode references ``[N, S, S, 3]`` uint8, on the CPU, to ``[N, tokens, E]`` f32 on the device.

        Raises ``UnknownAdapterError``.
        """
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
        """Run one tick; see ``Backend.predict_noise``. Padding rows are zero latents at timestep 0.

        Raises ``SlotError`` for a slot that is not taken and ``ValueError`` for a bucket or a size that cannot run.
        """
        channels, height, width = sample.shape[1:]
        shape = (channels, height, width)
        offered = self.buckets(shape)
        if bucket not in offered:
            raise ValueError(f"no program for bucket {bucket} at latents {list(shape)}; there are {offered}")
        if not 0 < len(slots) <= bucket:
            raise ValueError(f"{len(slots)} rows do not fit bucket {bucket}")
        groups = self._rows.by_width(slots, self._narrow)
        with torch.inference_mode():
            if len(groups) == 1:
                return self._run(slots, sample, timestep, bucket)
            noise = torch.empty_like(sample, dtype=torch.float32)
            for group in groups:
                rows = self._index(group)
                # In the bucket that was asked for, not the least that holds the group: its bits are promised.
                found = self._run([slots[i] for i in group], sample[rows], timestep[rows], bucket)
                noise.index_copy_(0, rows, found)
            return noise

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode ``[N, C, h, w]`` f32 to ``[N, H, W, 3]`` uint8 on the device."""
        return self._decoder.decode(latents)

    def calls(self) -> list[CapturedCall]:
        """Return the call of each program that was made so far: whether it was captured, and if not, why."""
        return [program.call for _, program in self._ready.values()]

    def _run(
        self, slots: Sequence[int], sample: torch.Tensor, timestep: torch.Tensor, bucket: int
    ) -> torch.Tensor:
        held = self._rows.slots
        wide = max(held.tokens[slot] for slot in slots) > self._narrow
        width = held.kv_ip.shape[1] if wide else self._narrow
        channels, high, across = sample.shape[1:]
        staging = self._staging(width)
        places = self._index(staging.arrange(slots, single_seats(bucket)))
        inputs, program = self._program(staging, ProgramKey(bucket, (channels, high, across), width))
        if len(slots) < bucket:
            inputs.sample.zero_()
            inputs.timestep.zero_()
        inputs.sample.index_copy_(0, places, sample.to(inputs.sample.dtype))
        inputs.timestep.index_copy_(0, places, timestep.to(inputs.timestep.dtype))
        return program().index_select(0, places).float()

    def _staging(self, width: int) -> Staging:
        if width not in self._stagings:
            self._stagings[width] = Staging(self._rows.slots, self._largest, width)
        return self._stagings[width]

    def _program(self, held: Staging, key: ProgramKey) -> tuple[BatchInputs, Program]:
        if key in self._ready:
            self._ready.move_to_end(key)
            return self._ready[key]
        while len(self._ready) >= PROGRAMS:
            self._ready.popitem(last=False)
        bucket = key.bucket
        unmasked = self._unmasked and key.width == self._narrow
        inputs = BatchInputs(
            sample=torch.zeros(bucket, *key.shape, dtype=self._programs.dtype, device=self.device),
            timestep=torch.zeros(bucket, dtype=torch.float32, device=self.device),
            kv_text=held.kv_text[:bucket],
            kv_ip=held.kv_ip[:bucket],
            ip_mask=None if held.ip_mask is None or unmasked else held.ip_mask[:bucket],
            **{name: buffer[:bucket] for name, buffer in held.vectors.items()},
        )
        self._ready[key] = inputs, self._programs.program(inputs)
        return self._ready[key]

    def _index(self, places: Sequence[int]) -> torch.Tensor:
        """Return places on the device."""
        key = tuple(places)
        if key in self._indices:
            self._indices.move_to_end(key)
            return self._indices[key]
        while len(self._indices) >= INDICES:
            self._indices.popitem(last=False)
        self._indices[key] = torch.tensor(places, device=self.device)
        return self._indices[key]

    def _project(self, reference: PlacedReference) -> torch.Tensor:
        projector = self._adapters[reference.adapter].kv
        return projector.project(reference.tokens.to(self.device), reference.scales)
