"""The conditioning of a graph that reads keys and values layer by layer, in memory of the graph's own."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

MASK = "ip_mask"
"""Input that is 0 for the reference tokens that a row has, ``-inf`` for those that it has not: ``[B, T]``."""


PackedRow = Mapping[str, torch.Tensor]
"""A row's inputs ``[T, D]`` by name, and as ``MASK`` whether it has each reference token, ``[T]`` bool."""


class LayerInput(Protocol):
    """One input of a graph, in which each row of a batch has a place."""

    def write(self, position: int, row: PackedRow) -> None:
        """Lay out a row at a position of the batch."""


def layer_input(name: str, memory: torch.Tensor) -> LayerInput:
    """Return the input of a name as ``read_by_layer`` or ``join_attention`` gave it, in ``memory`` of zeros.

    Keys are ``[B, heads, d, T]``, values ``[B, heads, T, d]``, of whatever type the graph reads.
    """
    packed, first, part = name.split("/")
    keys = part == "keys"
    wide = memory.shape[2] if keys else memory.shape[3]
    if "+" not in packed:
        return _Part(source=_Columns.of(packed, first, memory, wide), keys=keys, memory=memory)
    wide = wide if keys else wide // 2 - 1
    (text, reference), firsts = packed.split("+"), first.split("+")
    columns = [
        _Columns.of(name, column, memory, wide)
        for name, column in zip((text, reference, reference), firsts, strict=True)
    ]
    return _Joint(text=columns[0], reference=columns[1], values=columns[2], keys=keys, memory=memory)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """Columns ``[first, first + heads * wide)`` of the input ``packed``."""

    packed: str
    first: int
    heads: int
    wide: int

    @classmethod
    def of(cls, packed: str, first: str, memory: torch.Tensor, wide: int) -> _Columns:
        return cls(packed=packed, first=int(first), heads=memory.shape[1], wide=wide)

    def of_row(self, row: PackedRow) -> torch.Tensor:
        """Return a row's ``[heads, T, wide]``."""
        columns = row[self.packed][:, self.first : self.first + self.heads * self.wide]
        return columns.view(-1, self.heads, self.wide).transpose(0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """The keys or the values of one attention."""

    source: _Columns
    keys: bool
    memory: torch.Tensor

    def write(self, position: int, row: PackedRow) -> None:
        columns = self.source.of_row(row)
        self.memory[position] = columns.transpose(1, 2) if self.keys else columns


@dataclass(frozen=True, slots=True, kw_only=True)
class _Joint:
    """The keys of two attentions side by side, or their values as ``join_attention`` has them, with columns of ones.

    Keys beyond those of the prompt and of the tokens that a reference has are the prompt's first, which no softmax has
    to make room for. A reference whose ``values`` are all zero, as at scale 0, has no keys either: so it says nothing,
    not even by what its scores would leave of the prompt's weights to the last bit.
    """

    text: _Columns
    reference: _Columns
    values: _Columns
    keys: bool
    memory: torch.Tensor

    def write(self, position: int, row: PackedRow) -> None:
        text, reference, there = self.text.of_row(row), self.reference.of_row(row), row[MASK]
        memory, between = self.memory[position], text.shape[1]
        end, wide = between + reference.shape[1], self.text.wide
        if self.keys:
            memory[:, :, :between] = text.transpose(1, 2)
            memory[:, :, between:] = filling = memory[:, :, :1]
            if self.values.of_row(row).any():
                keys = reference.transpose(1, 2).to(memory.dtype)
                memory[:, :, between:end] = torch.where(there, keys, filling)
            return
        memory[:, :between, :wide] = text
        memory[:, :between, wide] = 1
        memory[:, between:end, wide + 1 : -1] = torch.where(there[:, None], reference, 0)
        memory[:, between:end, -1] = there


class ConditioningByLayer:
    """Lays out a row when it comes to a position, and leaves it there until one that differs takes its place."""

    def __init__(self, inputs: Sequence[LayerInput]) -> None:
        self._inputs = inputs
        self._held: dict[int, Hashable] = {}
        self.writes = 0
        """Rows laid out so far."""

    def hold(self, packed: Mapping[str, torch.Tensor], rows: Sequence[Hashable | None]) -> None:
        """Bring rows of ``[B, T, D]`` into place: those whose key their position does not hold yet.

        ``rows[i]`` is the key of row i, None for a row of padding, whose conditioning nobody looks at.
        """
        for position, key in enumerate(rows):
            if key is None or self._held.get(position) == key:
                continue
            row = {name: tensor[position] for name, tensor in packed.items()}
            if MASK in row:
                row[MASK] = row[MASK] == 0
            # One that raises leaves something of both rows.
            self._held.pop(position, None)
            for each in self._inputs:
                each.write(position, row)
            self._held[position] = key
            self.writes += 1
