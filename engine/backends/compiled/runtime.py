"""The runtime protocol: compile a graph of an export for shapes, get something to call."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Protocol

import torch

from engine.export.directory import ExportDirectory

Shape = tuple[int | None, ...]
"""A shape to compile for; None leaves a dimension dynamic."""

Tensors = Mapping[str, torch.Tensor]

Rows = Sequence[Hashable | None]
"""What the conditioning of each position of a batch is: one key is one content. None where there is only padding."""

Pairs = Sequence[tuple[int, int]]
"""Positions of a batch, two and two."""


class CompiledGraph(Protocol):
    """A graph that was compiled for shapes."""

    def __call__(self, inputs: Tensors, rows: Rows | None = None) -> dict[str, torch.Tensor]:
        """Run on inputs by name, of the graph's types; outputs by name belong to the caller."""


class Runtime(Protocol):
    """What compiles. Whether a graph was compiled at another time, and is only read, is the runtime's own affair."""

    name: str
    device: torch.device

    def pairs(self, rows: int) -> Pairs:
        """Return which positions of a batch of so many rows can share what two rows of one image have in common."""

    def compile(
        self, export: ExportDirectory, graph: str, shapes: Mapping[str, Shape], *, paired: bool = False
    ) -> CompiledGraph:
        """Compile a graph for input shapes. Raises ``GraphCompileError`` and ``GraphMismatchError``.

        A ``paired`` one, a UNet, reads of each of its ``pairs`` the latents and the timestep of the first.
        """
