"""Persistent conditioning buffers: a row's K/V are written once and stay where they are for its life."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch


class SlotsExhaustedError(RuntimeError):
    """Every slot is taken; the scheduler admitted more rows than the backend holds."""


class SlotError(RuntimeError):
    """A slot was used that is not taken: released twice, or never placed. A bug in the caller."""


class ReferenceTooLongError(ValueError):
    """A row brings more reference tokens than a slot holds."""


class SlotBuffers:
    """``capacity`` slots of packed K/V: ``kv_text [capacity, T, D]``, ``kv_ip [capacity, T_ip, D]``, ``ip_mask``.

    ``ip_mask [capacity, T_ip]`` is 0 for tokens that count and -inf for the rest; it is None where every row brings
    T_ip tokens or none (one reference a row), so that the graph needs no mask. ``vectors`` are further inputs of one
    vector a row, by name ``[capacity, width]`` f32.
    """

    def __init__(
        self,
        *,
        capacity: int,
        text_tokens: int,
        ip_tokens: int,
        width: int,
        masked: bool,
        dtype: torch.dtype,
        vectors: Mapping[str, int] | None = None,
    ) -> None:
        self.capacity = capacity
        self.kv_text = _untouched_zeros((capacity, text_tokens, width), dtype)
        self.kv_ip = _untouched_zeros((capacity, ip_tokens, width), dtype)
        self.ip_mask = torch.zeros(capacity, ip_tokens, dtype=dtype) if masked else None
        self.vectors = {name: torch.zeros(capacity, wide) for name, wide in (vectors or {}).items()}
        self._free = list(range(capacity))
        self._taken: set[int] = set()
        self.writes = [0] * capacity
        """How often each slot has been written: tells a copy of it that is out of date."""

    @property
    def taken(self) -> int:
        """Number of slots in use."""
        return len(self._taken)

    def place(
        self,
        kv_text: torch.Tensor,
        kv_ip: torch.Tensor | None,
        vectors: Mapping[str, torch.Tensor] | None = None,
    ) -> int:
        """Write a row's ``[T, D]``, ``[tokens, D]`` and vectors to the lowest free slot and return it.

        A row without a reference gets zero values: exactly the plain model. Raises ``SlotsExhaustedError`` and
        ``ReferenceTooLongError``.
        """
        tokens = 0 if kv_ip is None else kv_ip.shape[0]
        room = self.kv_ip.shape[1]
        if tokens > room or (self.ip_mask is None and tokens not in (0, room)):
            raise ReferenceTooLongError(f"{tokens} reference tokens where a slot holds {room}")
        if not self._free:
            raise SlotsExhaustedError(f"all {self.capacity} slots are taken")
        slot = heapq.heappop(self._free)
        self._taken.add(slot)
        self.writes[slot] += 1
        self.kv_text[slot] = kv_text
        self.kv_ip[slot].zero_()
        if kv_ip is not None:
            self.kv_ip[slot, :tokens] = kv_ip
        if self.ip_mask is not None:
            self.ip_mask[slot].zero_()
            if tokens:
                self.ip_mask[slot, tokens:] = -torch.inf
        for name, buffer in self.vectors.items():
            buffer[slot] = (vectors or {})[name]
        return slot

    def values(self, slot: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return what was placed in a slot, a reference of so many tokens included: views, not copies."""
        self.check([slot])
        return self.kv_text[slot], self.kv_ip[slot, :tokens] if tokens else None

    def release(self, slot: int) -> None:
        """Free a slot. Raises ``SlotError`` if it is not taken."""
        self.check([slot])
        self._taken.remove(slot)
        heapq.heappush(self._free, slot)

    def check(self, slots: Sequence[int]) -> None:
        """Raise ``SlotError`` unless all of these slots are taken and no slot comes twice."""
        for slot in slots:
            if slot not in self._taken:
                raise SlotError(f"slot {slot} is not taken")
        if len(set(slots)) != len(slots):
            raise SlotError(f"a slot comes twice in {list(slots)}")


class Staging:
    """A batch's copy of the conditioning of rows whose slots do not lie side by side.

    A row keeps its position in the copy from tick to tick, so only rows that are new to the batch are copied.
    """

    def __init__(self, slots: SlotBuffers, rows: int) -> None:
        self.slots = slots
        self.kv_text = _untouched_zeros((rows, *slots.kv_text.shape[1:]), slots.kv_text.dtype)
        self.kv_ip = _untouched_zeros((rows, *slots.kv_ip.shape[1:]), slots.kv_ip.dtype)
        self.ip_mask = None if slots.ip_mask is None else torch.zeros_like(slots.ip_mask[:rows])
        self.vectors = {name: torch.zeros_like(buffer[:rows]) for name, buffer in slots.vectors.items()}
        self._held: list[tuple[int, int] | None] = [None] * rows

    def arrange(self, slots: Sequence[int], bucket: int) -> list[int]:
        """Bring these slots into the first ``bucket`` positions; return the position of each."""
        wanted = {(slot, self.slots.writes[slot]): index for index, slot in enumerate(slots)}
        positions = [-1] * len(slots)
        vacant: list[int] = []
        for position in range(bucket):
            held = self._held[position]
            index = wanted.pop(held, None) if held is not None else None
            if index is None:
                vacant.append(position)
            else:
                positions[index] = position
        for (row, index), position in zip(wanted.items(), vacant, strict=False):
            self._copy(row[0], position)
            self._held[position] = row
            positions[index] = position
        return positions

    def _copy(self, slot: int, position: int) -> None:
        self.kv_text[position] = self.slots.kv_text[slot]
        self.kv_ip[position] = self.slots.kv_ip[slot]
        if self.ip_mask is not None and self.slots.ip_mask is not None:
            self.ip_mask[position] = self.slots.ip_mask[slot]
        for name, buffer in self.vectors.items():
            buffer[position] = self.slots.vectors[name][slot]


def _untouched_zeros(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Return zeros whose pages the system provides when they are first written.

    `torch.zeros` writes every one at once; most of a default engine's 64 slots are never taken.
    """
    size = math.prod(shape) * dtype.itemsize
    return torch.from_numpy(np.zeros(size, dtype=np.uint8)).view(dtype).view(shape)
