"""OpenVINO with graphs that are watched: the ranges of their layers' inputs, over all that they are called with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from engine.backends.compiled.openvino_core import shared_core
from engine.backends.compiled.openvino_graph import OpenVINOGraph
from engine.backends.compiled.openvino_int8 import quantise, seen, watch, watched
from engine.backends.compiled.openvino_runtime import (
    REDUCED,
    OpenVINORuntime,
    OpenVINOSettings,
    compile_options,
)
from engine.backends.compiled.runtime import CompiledGraph, Pairs, Rows, Shape, Tensors
from engine.export.activations import Range, Ranges
from engine.export.directory import ExportDirectory

KEPT_ONE_IN = {"unet": 19, "vae_decoder": 3}
"""One call in so many is kept to be computed again: a UNet's go through the steps of sampling again and again."""
MOST_KEPT = 12
"""Of a graph: a UNet's inputs have the keys and values of all its rows."""

Kept = list[tuple[dict[str, torch.Tensor], torch.Tensor, list[int]]]
"""Inputs of calls, what they gave, and which of their rows are no padding."""


@dataclass(slots=True)
class _Watched:
    """A graph that is watched, of one shape."""

    export: ExportDirectory
    shapes: Mapping[str, Shape]
    result: str
    calls: int = 0
    kept: Kept = field(default_factory=list)


class WatchingRuntime(OpenVINORuntime):
    """Compiles what int8 is for so that it notes what it sees, in float32, of one static shape: ``forget`` warm-up."""

    def __init__(self, settings: OpenVINOSettings) -> None:
        super().__init__(settings)
        self.ranges: dict[str, Range] = {}
        self._watched: dict[str, _Watched] = {}

    def forget(self) -> None:
        """Begin anew."""
        self.ranges.clear()
        for told in self._watched.values():
            told.kept.clear()
            told.calls = 0

    def pairs(self, rows: int) -> Pairs:
        """Return no pairs: every row is watched."""
        return ()

    def compile(
        self, export: ExportDirectory, graph: str, shapes: Mapping[str, Shape], *, paired: bool = False
    ) -> CompiledGraph:
        """Compile a graph; see ``Runtime.compile``."""
        if graph not in REDUCED or None in {size for shape in shapes.values() for size in shape}:
            return super().compile(export, graph, shapes, paired=paired)
        (output,) = export.manifest.graphs[graph].outputs
        told = self._watched[graph] = _Watched(export, shapes, output.name)
        model = self._model(graph)
        names = watch(model)
        call = self._compiled(model, (told.result, *watched(names)))

        def compute(inputs: Tensors, rows: Rows | None = None) -> dict[str, torch.Tensor]:
            found = call(inputs, rows)
            result = found.pop(told.result)
            real = [at for at in range(len(result)) if rows is None or rows[at] is not None]
            self._note(seen(names, {name: limits.numpy() for name, limits in found.items()}, real))
            if told.calls % KEPT_ONE_IN[graph] == 0 and len(told.kept) < MOST_KEPT:
                given = {name: tensor.clone() for name, tensor in inputs.items()}
                told.kept.append((given, result.clone(), real))
            told.calls += 1
            return {told.result: result}

        return compute

    def errors(self) -> dict[str, float]:
        """Return how far each graph is off in int8, over some of its calls: the rms error over the result's own rms."""
        return {graph: self._error(graph) for graph, told in self._watched.items() if told.kept}

    def _error(self, graph: str) -> float:
        told = self._watched[graph]
        model = self._model(graph)
        quantise(model, self.ranges)
        compute = self._compiled(model, (told.result,))
        pairs = [(compute(inputs, None)[told.result][real], exact[real]) for inputs, exact, real in told.kept]
        missed = torch.cat([found - exact for found, exact in pairs])
        wanted = torch.cat([exact for _, exact in pairs])
        return float((missed.square().mean() / wanted.square().mean()).sqrt())

    def _model(self, graph: str) -> Any:
        told = self._watched[graph]
        model = shared_core().read_model(told.export.graph(graph)[0])
        model.reshape({name: list(shape) for name, shape in told.shapes.items()})
        return model

    def _compiled(self, model: Any, outputs: tuple[str, ...]) -> CompiledGraph:
        options = compile_options("f32", threads=self._settings.threads)
        return OpenVINOGraph(shared_core().compile_model(model, "CPU", options), outputs)

    def _note(self, ranges: Ranges) -> None:
        for name, found in ranges.items():
            known = self.ranges.get(name)
            self.ranges[name] = found if known is None else known.joined(found)
