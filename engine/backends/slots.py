"""Persistent conditioning buffers: a row's K/V are written once and stay where they are for its life."""

from __future__ import annotations

import math
import mmap
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from itertools import chain

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

    A row brings ``tokens[slot]`` reference tokens, at most T_ip; the rest of its slot is zero. ``ip_mask [capacity,
    T_ip]`` is 0 for tokens that count and -inf for the rest. It is None where it was not asked for: then a batch is
    read as wide as its rows' tokens, and rows of different widths apart from each other. ``vectors`` are further inputs
    of one vector a row, by name ``[capacity, width]`` f32.
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
        device: torch.device | None = None,
    ) -> None:
        self.capacity = capacity
        self.device = device or torch.device("cpu")
        self.kv_text = _zeros((capacity, text_tokens, width), dtype, self.device)
        self.kv_ip = _sparse_zeros((capacity, ip_tokens, width), dtype, self.device)
        self.ip_mask = torch.zeros(capacity, ip_tokens, dtype=dtype, device=self.device) if masked else None
        self.tokens = [0] * capacity
        """How many reference tokens each slot holds, or held last."""
        self.vectors = {
            name: torch.zeros(capacity, wide, device=self.device) for name, wide in (vectors or {}).items()
        }
        self.contents: list[Hashable | None] = [None] * capacity
        """What each slot holds, or held last; None before it holds anything. One name is one content."""
        self._taken: set[int] = set()

    @property
    def taken(self) -> int:
        """Number of slots in use."""
        return len(self._taken)

    def place(
        self,
        content: Hashable,
        kv_text: torch.Tensor,
        kv_ip: torch.Tensor | None,
        vectors: Mapping[str, torch.Tensor] | None = None,
    ) -> int:
        """Write a row's ``[T, D]``, ``[tokens, D]`` and vectors to a free slot and return it.

        ``content`` names what is written. A free slot that still holds it is taken as it is; else the lowest is
        written. A row without a reference gets zero values: exactly the plain model. Raises ``SlotsExhaustedError``
        and ``ReferenceTooLongError``.
        """
        tokens = 0 if kv_ip is None else kv_ip.shape[0]
        room = self.kv_ip.shape[1]
        if tokens > room:
            raise ReferenceTooLongError(f"{tokens} reference tokens where a slot holds {room}")
        free = [slot for slot in range(self.capacity) if slot not in self._taken]
        if not free:
            raise SlotsExhaustedError(f"all {self.capacity} slots are taken")
        slot = next((slot for slot in free if self.contents[slot] == content), free[0])
        assert content is not None, "a slot that holds nothing would do"
        if self.contents[slot] != content:
            # One that raises leaves something of both rows.
            self.contents[slot] = None
            self._write(slot, kv_text, kv_ip, vectors or {})
            self.contents[slot] = content
        self._taken.add(slot)
        return slot

    def _write(
        self,
        slot: int,
        kv_text: torch.Tensor,
        kv_ip: torch.Tensor | None,
        vectors: Mapping[str, torch.Tensor],
    ) -> None:
        tokens = 0 if kv_ip is None else kv_ip.shape[0]
        self.kv_text[slot] = kv_text
        _overwrite(self.kv_ip, kv_ip, self.tokens, slot)
        if self.ip_mask is not None:
            self.ip_mask[slot].zero_()
            if tokens:
                self.ip_mask[slot, tokens:] = -torch.inf
        for name, buffer in self.vectors.items():
            buffer[slot] = vectors[name]

    def values(self, slot: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return what a slot holds, or held last: views, not copies."""
        tokens = self.tokens[slot]
        return self.kv_text[slot], self.kv_ip[slot, :tokens] if tokens else None

    def release(self, slot: int) -> None:
        """Free a slot. Raises ``SlotError`` if it is not taken."""
        self.check([slot])
        self._taken.remove(slot)

    def check(self, slots: Sequence[int]) -> None:
        """Raise ``SlotError`` unless all of these slots are taken and no slot comes twice."""
        for slot in slots:
            if slot not in self._taken:
                raise SlotError(f"slot {slot} is not taken")
        if len(set(slots)) != len(slots):
            raise SlotError(f"a slot comes twice in {list(slots)}")


def single_seats(bucket: int) -> list[tuple[int]]:
    """Return seats of one position each, for ``Staging.arrange``."""
    return [(position,) for position in range(bucket)]


class Staging:
    """A batch's copy of the conditioning of rows whose slots do not lie side by side.

    A row keeps its position in the copy from tick to tick, so only what is new to a position is copied.
    ``ip_tokens`` makes the copy narrower than the slots, for rows that bring no more reference tokens than that.
    """

    def __init__(self, slots: SlotBuffers, rows: int, ip_tokens: int | None = None) -> None:
        self.slots = slots
        room = ip_tokens or slots.kv_ip.shape[1]
        self.kv_text = _zeros((rows, *slots.kv_text.shape[1:]), slots.kv_text.dtype, slots.device)
        self.kv_ip = _sparse_zeros((rows, room, slots.kv_ip.shape[2]), slots.kv_ip.dtype, slots.device)
        self.ip_mask = None if slots.ip_mask is None else torch.zeros_like(slots.ip_mask[:rows, :room])
        self.tokens = [0] * rows
        """How many reference tokens each position holds."""
        self.vectors = {name: torch.zeros_like(buffer[:rows]) for name, buffer in slots.vectors.items()}
        self._held: list[Hashable | None] = [None] * rows

    def arrange(
        self,
        slots: Sequence[int],
        seats: Sequence[Sequence[int]],
        units: Sequence[Sequence[int]] | None = None,
    ) -> list[int]:
        """Bring these slots into positions of the batch; return the position of each.

        ``seats`` are positions that go together, and ``units`` indices of slots that do: a unit takes a seat, from its
        first position on. By default each slot is a unit of its own.
        """
        contents = [self.slots.contents[slot] for slot in slots]
        waiting: dict[Hashable | None, deque[Sequence[int]]] = {}
        for unit in units or [(index,) for index in range(len(slots))]:
            waiting.setdefault(contents[unit[0]], deque()).append(unit)
        seated: list[tuple[Sequence[int], Sequence[int]]] = []
        vacant: list[Sequence[int]] = []
        for seat in seats:
            if alike := waiting.get(self._held[seat[0]]):
                seated.append((alike.popleft(), seat))
            else:
                vacant.append(seat)
        seated += zip(chain.from_iterable(waiting.values()), vacant, strict=False)
        assert sum(len(unit) for unit, _ in seated) == len(slots), "there are fewer seats than units"
        positions = [-1] * len(slots)
        for unit, seat in seated:
            assert len(unit) <= len(seat), "a unit has more rows than a seat"
            for index, position in zip(unit, seat, strict=False):
                if self._held[position] != contents[index]:
                    self._held[position] = None
                    self._copy(slots[index], position)
                    self._held[position] = contents[index]
                positions[index] = position
        return positions

    def _copy(self, slot: int, position: int) -> None:
        self.kv_text[position] = self.slots.kv_text[slot]
        tokens = self.slots.tokens[slot]
        _overwrite(self.kv_ip, self.slots.kv_ip[slot, :tokens], self.tokens, position)
        if self.ip_mask is not None and self.slots.ip_mask is not None:
            self.ip_mask[position] = self.slots.ip_mask[slot, : self.ip_mask.shape[1]]
        for name, buffer in self.vectors.items():
            buffer[position] = self.slots.vectors[name][slot]


def _overwrite(rooms: torch.Tensor, kv_ip: torch.Tensor | None, counts: list[int], place: int) -> None:
    """Write a row's ``[tokens, D]`` to a place of ``[places, T_ip, D]`` and clear what else the last row there left.

    Nothing beyond is written, so its pages stay untouched: most rows bring one reference where four have room.
    """
    tokens, held = 0 if kv_ip is None else kv_ip.shape[0], counts[place]
    # Should a copy raise, the next row clears all that may be there.
    counts[place] = max(held, tokens)
    if kv_ip is not None:
        rooms[place, :tokens] = kv_ip
    rooms[place, tokens:held].zero_()
    counts[place] = tokens


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return zeros; on the CPU, zeros whose pages the system provides when they are first written.

    There `torch.zeros` writes every one at once, and most of a default engine's 64 slots are never taken.
    """
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    size = math.prod(shape) * dtype.itemsize
    return torch.from_numpy(np.zeros(size, dtype=np.uint8)).view(dtype).view(shape)


def _sparse_zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return such zeros in small pages: numpy asks for huge ones, which reach into the room that rows do not use."""
    if device.type != "cpu":
        return _zeros(shape, dtype, device)
    size = math.prod(shape) * dtype.itemsize
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(shape)
