"""OpenVINO with a UNet that is watched: the ranges of its layers' inputs, over all that it is called with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from engine.backends.compiled.openvino_core import shared_core
from engine.backends.compiled.openvino_graph import OpenVINOGraph
from engine.backends.compiled.openvino_int8 import quantise, watch
from engine.backends.compiled.openvino_rewrites import cut_before_linear
from engine.backends.compiled.openvino_runtime import (
    QUANTISED,
    OpenVINORuntime,
    OpenVINOSettings,
    compile_options,
)
from engine.backends.compiled.runtime import CompiledGraph, Pairs, Rows, Shape, Tensors
from engine.export.activations import Range
from engine.export.directory import ExportDirectory

NOISE = "noise"
KEPT_ONE_IN = 37
"""One call in so many is kept to be predicted again: calls go through the steps of sampling again and again."""


class WatchingRuntime(OpenVINORuntime):
    """Compiles UNets of one static shape so that they note what they see, in float32: ``forget`` what was warm-up."""

    def __init__(self, settings: OpenVINOSettings) -> None:
        super().__init__(settings)
        self.ranges: dict[str, Range] = {}
        self._calls = 0
        self._kept: list[tuple[dict[str, torch.Tensor], torch.Tensor]] = []
        self._source: tuple[ExportDirectory, Mapping[str, Shape]] | None = None

    def forget(self) -> None:
        """Begin anew."""
        self.ranges.clear()
        self._kept.clear()
        self._calls = 0

    def pairs(self, rows: int) -> Pairs:
        """Return no pairs: every row is watched."""
        return ()

    def compile(
        self, export: ExportDirectory, graph: str, shapes: Mapping[str, Shape], *, paired: bool = False
    ) -> CompiledGraph:
        """Compile a graph; see ``Runtime.compile``."""
        if graph != QUANTISED or None in {size for shape in shapes.values() for size in shape}:
            return super().compile(export, graph, shapes, paired=paired)
        self._source = export, shapes
        model = self._model()
        names = watch(model)
        ends = [f"{number}.{end}" for number in range(len(names)) for end in ("low", "high")]
        watched = self._compiled(model, (NOISE, *ends))

        def predict(inputs: Tensors, rows: Rows | None = None) -> dict[str, torch.Tensor]:
            found = watched(inputs, rows)
            self._note(names, found, rows or [True] * len(found[NOISE]))
            if self._calls % KEPT_ONE_IN == 0:
                self._kept.append(
                    ({name: tensor.clone() for name, tensor in inputs.items()}, found[NOISE].clone())
                )
            self._calls += 1
            return {NOISE: found[NOISE]}

        return predict

    def error(self) -> float:
        """Return how far the UNet in int8 is off, over some of the calls: the rms error over the noise's own rms."""
        model = self._model()
        quantise(model, self.ranges)
        predict = self._compiled(model, (NOISE,))
        missed = torch.cat([predict(inputs, None)[NOISE] - noise for inputs, noise in self._kept])
        exact = torch.cat([noise for _, noise in self._kept])
        return float((missed.square().mean() / exact.square().mean()).sqrt())

    def _model(self) -> Any:
        """Read the UNet as a graph for int8 has it: a layer that is computed in parts has one range."""
        assert self._source is not None, "the backend compiles its UNet before it predicts"
        export, shapes = self._source
        model = shared_core().read_model(export.graph(QUANTISED)[0])
        model.reshape({name: list(shape) for name, shape in shapes.items()})
        cut_before_linear(model)
        return model

    def _compiled(self, model: Any, outputs: tuple[str, ...]) -> CompiledGraph:
        options = compile_options("f32", threads=self._settings.threads)
        return OpenVINOGraph(shared_core().compile_model(model, "CPU", options), outputs)

    def _note(self, names: list[str], found: Mapping[str, torch.Tensor], rows: Rows) -> None:
        """Widen the ranges by all rows that are not padding."""
        real = [at for at, row in enumerate(rows) if row is not None]
        for number, name in enumerate(names):
            low, high = (found[f"{number}.{end}"][real].numpy() for end in ("low", "high"))
            seen = Range(low.min(axis=0).astype(np.float32), high.max(axis=0).astype(np.float32))
            known = self.ranges.get(name)
            self.ranges[name] = seen if known is None else known.joined(seen)
