"""OpenVINO with graphs that are watched: the ranges of their layers' inputs, over all that they are called with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from engine.backends.compiled.openvino_core import shared_core
from engine.backends.compiled.openvino_graph import OpenVINOGraph
from engine.backends.compiled.openvino_int8 import quantise, watch
from engine.backends.compiled.openvino_rewrites import cut_before_linear
from engine.backends.compiled.openvino_runtime import (
    REDUCED,
    OpenVINORuntime,
    OpenVINOSettings,
    compile_options,
)
from engine.backends.compiled.runtime import CompiledGraph, Pairs, Rows, Shape, Tensors
from engine.export.activations import Range
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
        for watched in self._watched.values():
            watched.kept.clear()
            watched.calls = 0

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
        watched = self._watched[graph] = _Watched(export, shapes, output.name)
        model = self._model(graph)
        names = watch(model)
        ends = [f"{number}.{end}" for number in range(len(names)) for end in ("low", "high")]
        call = self._compiled(model, (watched.result, *ends))

        def compute(inputs: Tensors, rows: Rows | None = None) -> dict[str, torch.Tensor]:
            found = call(inputs, rows)
            result = found[watched.result]
            real = [at for at in range(len(result)) if rows is None or rows[at] is not None]
            self._note(names, found, real)
            if watched.calls % KEPT_ONE_IN[graph] == 0 and len(watched.kept) < MOST_KEPT:
                given = {name: tensor.clone() for name, tensor in inputs.items()}
                watched.kept.append((given, result.clone(), real))
            watched.calls += 1
            return {watched.result: result}

        return compute

    def errors(self) -> dict[str, float]:
        """Return how far each graph is off in int8, over some of its calls: the rms error over the result's own rms."""
        return {graph: self._error(graph) for graph, watched in self._watched.items() if watched.kept}

    def _error(self, graph: str) -> float:
        watched = self._watched[graph]
        model = self._model(graph)
        quantise(model, self.ranges)
        compute = self._compiled(model, (watched.result,))
        pairs = [
            (compute(inputs, None)[watched.result][real], exact[real]) for inputs, exact, real in watched.kept
        ]
        missed = torch.cat([found - exact for found, exact in pairs])
        wanted = torch.cat([exact for _, exact in pairs])
        return float((missed.square().mean() / wanted.square().mean()).sqrt())

    def _model(self, graph: str) -> Any:
        """Read a graph as one for int8 has it: a layer that is computed in parts has one range."""
        watched = self._watched[graph]
        model = shared_core().read_model(watched.export.graph(graph)[0])
        model.reshape({name: list(shape) for name, shape in watched.shapes.items()})
        cut_before_linear(model)
        return model

    def _compiled(self, model: Any, outputs: tuple[str, ...]) -> CompiledGraph:
        options = compile_options("f32", threads=self._settings.threads)
        return OpenVINOGraph(shared_core().compile_model(model, "CPU", options), outputs)

    def _note(self, names: list[str], found: Mapping[str, torch.Tensor], real: list[int]) -> None:
        """Widen the ranges by all rows that are not padding."""
        for number, name in enumerate(names):
            low, high = (found[f"{number}.{end}"][real].numpy() for end in ("low", "high"))
            seen = Range(low.min(axis=0).astype(np.float32), high.max(axis=0).astype(np.float32))
            known = self.ranges.get(name)
            self.ranges[name] = seen if known is None else known.joined(seen)
