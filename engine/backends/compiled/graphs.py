"""An export's graphs, compiled when they are first needed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch

from engine.backends.compiled.runtime import CompiledGraph, Rows, Runtime, Shape, Tensors
from engine.export.directory import ExportDirectory

Key = tuple[object, ...]
"""Whether a graph is a paired one, then its inputs' names and shapes."""


class Graphs:
    """Runs graphs by name, each compiled for the very shapes of its inputs, or for dynamic ones where asked.

    ``kept`` compiled graphs of one name stay, at most; those used least recently go first.
    """

    def __init__(self, export: ExportDirectory, runtime: Runtime, kept: int) -> None:
        self._export = export
        self._runtime = runtime
        self._kept = kept
        self._compiled: dict[str, OrderedDict[Key, CompiledGraph]] = {}
        self._types = {
            name: {spec.name: getattr(torch, spec.dtype) for spec in graph.inputs}
            for name, graph in export.manifest.graphs.items()
        }

    def run(
        self,
        graph: str,
        inputs: Tensors,
        *,
        rows: Rows | None = None,
        dynamic: bool = False,
        paired: bool = False,
    ) -> dict[str, torch.Tensor]:
        """Run a graph; inputs are brought to its types. ``dynamic`` leaves every dimension dynamic that may be."""
        given = {name: inputs[name].to(kind) for name, kind in self._types[graph].items()}
        shapes = _shapes(given)
        return self.compiled(graph, self._free(graph) if dynamic else shapes, paired=paired)(given, rows)

    def compiled(self, graph: str, shapes: Mapping[str, Shape], *, paired: bool = False) -> CompiledGraph:
        """Return a graph compiled for these shapes. Raises the ``ExportError`` family."""
        kept = self._compiled.setdefault(graph, OrderedDict())
        key = _key(shapes, paired=paired)
        if key not in kept:
            kept[key] = self._runtime.compile(self._export, graph, shapes, paired=paired)
            while len(kept) > self._kept:
                kept.popitem(last=False)
        kept.move_to_end(key)
        return kept[key]

    def forget(self, graph: str, inputs: Tensors, *, paired: bool = False) -> None:
        """Let go of the graph that was compiled for inputs of these shapes."""
        given = {name: inputs[name] for name in self._types[graph]}
        del self._compiled[graph][_key(_shapes(given), paired=paired)]

    def _free(self, graph: str) -> dict[str, Shape]:
        return {
            spec.name: tuple(size if isinstance(size, int) else None for size in spec.shape)
            for spec in self._export.manifest.graphs[graph].inputs
        }


def _shapes(tensors: Tensors) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _key(shapes: Mapping[str, Shape], *, paired: bool) -> Key:
    return (paired, *shapes.items())
