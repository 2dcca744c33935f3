"""A backend on a GPU: encoders and decoder through torch, the UNet through programs over tensors that never move."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import torch

from engine.backends.base import EncodedPrompt, LatentShape, ModelFacts, RowConditioning
from engine.backends.cuda_stream import CapturedCall
from engine.backends.slots import SlotBuffers, Staging
from engine.models.model import Model

PROGRAMS = 32
"""Programs kept, of all buckets and sizes; each holds its graph's memory. The least recently used goes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchInputs:
    """What a program reads, at addresses that never change; the first axis is the bucket.

    ``sample [B, C, h, w]`` and ``timestep [B]`` (f32) are written before each run, ``kv_text [B, T, D]``,
    ``kv_ip [B, T_ip, D]`` and ``ip_mask [B, T_ip]`` (None where every row brings the same number of tokens) when a row
    joins the batch. SDXL's graph takes ``text_embeds [B, P]`` and ``time_ids [B, 6]`` too.
    """

    sample: torch.Tensor
    timestep: torch.Tensor
    kv_text: torch.Tensor
    kv_ip: torch.Tensor
    ip_mask: torch.Tensor | None
    text_embeds: torch.Tensor | None = None
    time_ids: torch.Tensor | None = None

    def named(self) -> dict[str, torch.Tensor]:
        """Return the tensors that are there, by the graph's names."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: tensor for name, tensor in named.items() if tensor is not None}


class Program(Protocol):
    """The UNet for one bucket and one latent shape."""

    call: CapturedCall

    def __call__(self) -> torch.Tensor:
        """Run over the inputs it was made with; return ``[B, C, h, w]``, valid until the next run of any program."""


class Programs(Protocol):
    """Makes programs, and says what they take."""

    dtype: torch.dtype
    """Type of the latents, of the K/V and of the mask."""

    masked: bool
    """Whether the graph takes a mask even where rows bring the same number of tokens."""

    def buckets(self, shape: LatentShape) -> tuple[int, ...]:
        """Return the batch sizes for this latent shape, ascending; none where it cannot run."""

    def program(self, inputs: BatchInputs) -> Program:
        """Make the program for these inputs."""


class DeviceBackend:
    """``engine.backends.base.Backend`` on a GPU.

    Rows are gathered in a staging area with one address for every bucket, because a CUDA graph and a TensorRT binding
    hold addresses. Only rows that are new to the batch are copied there; a tick moves latents and timesteps.
    """

    def __init__(
        self,
        model: Model,
        programs: Programs,
        *,
        device: torch.device,
        capacity: int,
        max_references: int = 1,
    ) -> None:
        self._prompts = model.prompts
        self._image_encoder = model.image_encoder
        self._adapter = model.adapter
        self._text_kv = model.text_kv
        self._decoder = model.decoder
        self._programs = programs
        self.facts: ModelFacts = model.facts
        self.device = device
        self.unconditional_tokens = model.unconditional_tokens
        scale = model.facts.latent_scale
        self._default: LatentShape = (
            model.facts.latent_channels,
            model.facts.default_height // scale,
            model.facts.default_width // scale,
        )
        largest = programs.buckets(self._default)[-1]
        if capacity < largest:
            raise ValueError(f"capacity {capacity} is less than the largest bucket {largest}")
        self._slots = SlotBuffers(
            capacity=capacity,
            text_tokens=model.facts.prompt_tokens,
            ip_tokens=max(1, model.facts.reference_tokens * max_references),
            width=model.text_kv.weight.shape[0],
            masked=programs.masked or max_references > 1,
            dtype=programs.dtype,
            device=device,
        )
        self._staging = Staging(self._slots, largest)
        self._rows: dict[int, RowConditioning] = {}
        self._ready: OrderedDict[tuple[int, LatentShape], tuple[BatchInputs, Program]] = OrderedDict()
        self._positions: tuple[tuple[int, ...], torch.Tensor] = ((), torch.empty(0))

    def buckets(self, shape: LatentShape) -> tuple[int, ...]:
        """Return the batch sizes in rows that this latent shape runs in; none where it cannot run."""
        return self._programs.buckets(shape)

    def encode_prompts(self, texts: Sequence[str]) -> list[EncodedPrompt]:
        """Encode texts in one batch."""
        return self._prompts.encode(texts)

    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode references ``[N, S, S, 3]`` uint8, on the CPU, to ``[N, tokens, E]`` f32 on the device.

        Raises ``ValueError`` for a model without an adapter.
        """
        if self._image_encoder is None or self._adapter is None:
            raise ValueError("this model has no adapter, so it takes no references")
        return self._image_encoder.encode(pixels, self._adapter)

    def place(self, row: RowConditioning) -> int:
        """Compute the row's K/V, or copy them from a slot that holds this very row, and write them to a free slot.

        Raises ``SlotsExhaustedError``, ``ReferenceTooLongError``, and ``ValueError`` for tokens without an adapter.
        """
        with torch.inference_mode():
            twin = next((slot for slot, placed in self._rows.items() if placed is row), None)
            kv_text, kv_ip = self._project(row) if twin is None else self._slots.values(twin, _tokens(row))
            slot = self._slots.place(kv_text, kv_ip)
        self._rows[slot] = row
        return slot

    def release(self, slot: int) -> None:
        """Free a slot. Raises ``SlotError`` if it is not taken."""
        self._slots.release(slot)
        del self._rows[slot]

    def predict_noise(
        self, slots: Sequence[int], sample: torch.Tensor, timestep: torch.Tensor, bucket: int
    ) -> torch.Tensor:
        """Run one tick; see ``Backend.predict_noise``. Padding rows are zero latents at timestep 0.

        Raises ``SlotError`` for a slot that is not taken and ``ValueError`` for a bucket or a size that cannot run.
        """
        rows = len(slots)
        channels, height, width = sample.shape[1:]
        shape = (channels, height, width)
        offered = self.buckets(shape)
        if bucket not in offered:
            raise ValueError(f"no program for bucket {bucket} at latents {list(shape)}; there are {offered}")
        if not 0 < rows <= bucket:
            raise ValueError(f"{rows} rows do not fit bucket {bucket}")
        self._slots.check(slots)
        with torch.inference_mode():
            positions = self._index(self._staging.arrange(slots, bucket))
            inputs, program = self._program(bucket, shape)
            if rows < bucket:
                inputs.sample.zero_()
                inputs.timestep.zero_()
            inputs.sample.index_copy_(0, positions, sample.to(inputs.sample.dtype))
            inputs.timestep.index_copy_(0, positions, timestep.to(inputs.timestep.dtype))
            return program().index_select(0, positions).float()

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode ``[N, C, h, w]`` f32 to ``[N, H, W, 3]`` uint8 on the device."""
        return self._decoder.decode(latents)

    def calls(self) -> list[CapturedCall]:
        """Return the call of each program that was made so far: whether it was captured, and if not, why."""
        return [program.call for _, program in self._ready.values()]

    def _program(self, bucket: int, shape: LatentShape) -> tuple[BatchInputs, Program]:
        key = (bucket, shape)
        if key in self._ready:
            self._ready.move_to_end(key)
            return self._ready[key]
        while len(self._ready) >= PROGRAMS:
            self._ready.popitem(last=False)
        held = self._staging
        inputs = BatchInputs(
            sample=torch.zeros(bucket, *shape, dtype=self._programs.dtype, device=self.device),
            timestep=torch.zeros(bucket, dtype=torch.float32, device=self.device),
            kv_text=held.kv_text[:bucket],
            kv_ip=held.kv_ip[:bucket],
            ip_mask=None if held.ip_mask is None else held.ip_mask[:bucket],
        )
        self._ready[key] = inputs, self._programs.program(inputs)
        return self._ready[key]

    def _index(self, positions: list[int]) -> torch.Tensor:
        """Return positions on the device; a batch keeps them for many ticks, and an upload waits."""
        if self._positions[0] != tuple(positions):
            self._positions = tuple(positions), torch.tensor(positions, device=self.device)
        return self._positions[1]

    def _project(self, row: RowConditioning) -> tuple[torch.Tensor, torch.Tensor | None]:
        kv_ip = None
        if row.reference_tokens is not None:
            if self._adapter is None:
                raise ValueError("this model has no adapter, so it takes no references")
            kv_ip = self._adapter.kv.project(row.reference_tokens.to(self.device), row.scale)
        return self._text_kv.project(row.prompt.embedding.to(self.device)), kv_ip


def _tokens(row: RowConditioning) -> int:
    return 0 if row.reference_tokens is None else row.reference_tokens.shape[0]
