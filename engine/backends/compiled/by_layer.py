"""The conditioning of a graph that reads keys and values layer by layer, in memory of the graph's own."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerInput:
    """One input: columns ``[first, first + heads * d)`` of the packed input ``packed``.

    ``memory`` is ``[B, heads, d, T]`` for keys, ``[B, heads, T, d]`` for values, of whatever type the graph reads.
    """

    packed: str
    first: int
    keys: bool
    memory: torch.Tensor

    @classmethod
    def of(cls, name: str, memory: torch.Tensor) -> LayerInput:
        """Read what the input holds from its name, as ``openvino_conditioning.read_by_layer`` gave it."""
        packed, first, part = name.split("/")
        return cls(packed=packed, first=int(first), keys=part == "keys", memory=memory)

    def write(self, position: int, packed: torch.Tensor) -> None:
        """Lay out one row's ``[T, D]``."""
        heads = self.memory.shape[1]
        wide = self.memory.shape[2 if self.keys else 3]
        columns = packed[:, self.first : self.first + heads * wide].unflatten(1, (heads, wide))
        self.memory[position] = columns.permute(1, 2, 0) if self.keys else columns.transpose(0, 1)


class ConditioningByLayer:
    """Lays out a row when it comes to a position, and leaves it there until another one takes its place."""

    def __init__(self, inputs: Sequence[LayerInput]) -> None:
        self._inputs = inputs
        self.packed = frozenset(each.packed for each in inputs)
        """The inputs of the exported graph that these stand for."""
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
            for each in self._inputs:
                each.write(position, packed[each.packed][position])
            self._held[position] = key
            self.writes += 1
