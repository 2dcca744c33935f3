"""OpenVINO with a UNet that reuses what its deep layers gave some steps before, as DeepCache does.

Source: Ma, Fang and Wang, "DeepCache: Accelerating Diffusion Models for Free", CVPR 2024 (arXiv 2312.00858).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import torch

from engine.backends.compiled.openvino_attention import join_attention
from engine.backends.compiled.openvino_conditioning import read_by_layer
from engine.backends.compiled.openvino_core import shared_core
from engine.backends.compiled.openvino_graph import CONDITIONING, OpenVINOGraph
from engine.backends.compiled.openvino_rewrites import rewrite_for_fast_products
from engine.backends.compiled.openvino_runtime import OpenVINORuntime, OpenVINOSettings, compile_options
from engine.backends.compiled.runtime import CompiledGraph, Pairs, Rows, Shape, Tensors
from engine.export.directory import ExportDirectory

DEEP = "deep"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reuse:
    """Compute the deep layers in every ``every``-th step alone.

    ``shallow`` resnets of the way up are computed in every step, counted from the UNet's end, with the ones of the way
    down whose outputs these read; what comes into the first of them from below is reused. ``every`` 1 reuses nothing.
    """

    every: int = 1
    shallow: int = 1


class ReusingRuntime(OpenVINORuntime):
    """Compiles UNets of static shapes so that they do what ``reuse`` says at the time of a step.

    They tell steps by their number: images must fill a bucket and go through all of their steps together.
    """

    def __init__(self, settings: OpenVINOSettings) -> None:
        super().__init__(settings)
        self.reuse = Reuse()
        self.settings = settings

    def pairs(self, rows: int) -> Pairs:
        """Return no pairs: what two rows have in common is computed for each."""
        return ()

    def compile(
        self, export: ExportDirectory, graph: str, shapes: Mapping[str, Shape], *, paired: bool = False
    ) -> CompiledGraph:
        """Compile a graph; see ``Runtime.compile``."""
        if graph != "unet" or None in {size for shape in shapes.values() for size in shape}:
            return super().compile(export, graph, shapes, paired=paired)
        return _ReusingGraph(self, export, shapes)


@dataclass(frozen=True, slots=True)
class _Parts:
    """The whole UNet, which gives its deep features too, and its shallow part, which takes them."""

    whole: CompiledGraph
    shallow: CompiledGraph


class _ReusingGraph:
    """A UNet as ``CompiledGraph`` whose calls are the steps of one batch after another."""

    def __init__(self, runtime: ReusingRuntime, export: ExportDirectory, shapes: Mapping[str, Shape]) -> None:
        self._runtime = runtime
        self._path = export.graph("unet")[0]
        self._shapes = {name: list(shape) for name, shape in shapes.items()}
        self._plain = self._compiled(self._read(), ("noise",))
        self._parts: dict[int, _Parts] = {}
        self._deep: torch.Tensor | None = None
        self._timestep = -inf
        self._step = 0

    def __call__(self, inputs: Tensors, rows: Rows | None = None) -> dict[str, torch.Tensor]:
        """Predict, with deep features of an earlier step where ``reuse`` says so.

        Raises ``ValueError`` where it does and the rows are not all at one step.
        """
        reuse = self._runtime.reuse
        if reuse.every == 1:
            self._timestep = -inf
            return self._plain(inputs, rows)
        timestep = float(inputs["timestep"][0])
        if not (inputs["timestep"] == timestep).all():
            raise ValueError(f"rows of several steps: {inputs['timestep'].tolist()}")
        self._step = self._step + 1 if timestep < self._timestep else 0
        self._timestep = timestep
        if reuse.shallow not in self._parts:
            self._parts[reuse.shallow] = self._part(reuse.shallow)
        parts = self._parts[reuse.shallow]
        if self._step % reuse.every == 0:
            found = parts.whole(inputs, rows)
            self._deep = found.pop(DEEP)
            return found
        assert self._deep is not None, "a batch's first step computes everything"
        return parts.shallow({**inputs, DEEP: self._deep}, rows)

    def _part(self, shallow: int) -> _Parts:
        whole, part = self._read(), self._read()
        give_deep(whole, shallow)
        return _Parts(
            whole=self._compiled(whole, ("noise", DEEP)),
            shallow=self._compiled(take_deep(part, shallow), ("noise",)),
        )

    def _read(self) -> Any:
        model = shared_core().read_model(self._path)
        model.reshape(self._shapes)
        if self._runtime.settings.precision == "bf16":
            rewrite_for_fast_products(model, spread=False)
        return model

    def _compiled(self, model: Any, outputs: tuple[str, ...]) -> CompiledGraph:
        precision = self._runtime.settings.precision
        if set(CONDITIONING) <= {name for port in model.inputs for name in port.names}:
            if not read_by_layer(model, CONDITIONING, precision):
                raise ValueError(
                    "the graph does not let keys and values be read by layer, as the backend's is"
                )
            if precision == "bf16":
                join_attention(model)
        options = compile_options(precision, threads=self._runtime.settings.threads)
        return OpenVINOGraph(shared_core().compile_model(model, "CPU", options), outputs)


def give_deep(model: Any, shallow: int) -> None:
    """Let a UNet give what comes from below into the first of its last ``shallow`` resnets on the way up."""
    from openvino import opset13 as ops

    value = _skip(model, shallow).input_value(0)
    value.set_names({DEEP})
    model.add_results([ops.result(value)])


def take_deep(model: Any, shallow: int) -> Any:
    """Return the UNet that takes it instead, and what that needs of it: a model that shares its operators."""
    import openvino
    from openvino import opset13 as ops

    skip = _skip(model, shallow)
    value = skip.input_value(0)
    deep = ops.parameter(value.get_shape(), value.get_element_type(), name=DEEP)
    deep.output(0).set_names({DEEP})
    skip.input(0).replace_source_output(deep.output(0))
    read = _read_by(model.get_results())
    parameters = [each for each in (*model.get_parameters(), deep) if each.get_name() in read]
    return openvino.Model(model.get_results(), parameters, "shallow")


def _read_by(results: Sequence[Any]) -> set[str]:
    """Return the names of all operators that results depend on."""
    seen: set[str] = set()
    ahead = list(results)
    while ahead:
        op = ahead.pop()
        if op.get_name() not in seen:
            seen.add(op.get_name())
            ahead += [value.get_node() for value in op.input_values()]
    return seen


def _skip(model: Any, shallow: int) -> Any:
    """Return the operator that joins, for a resnet on the way up, what comes from below with what comes from the side.

    These are the UNet's only ones that join two of its images by channels.
    """
    skips = [
        op
        for op in model.get_ordered_ops()
        if op.get_type_name() == "Concat"
        and op.get_input_size() == 2
        and op.get_axis() == 1
        and len(op.get_output_shape(0)) == 4
    ]
    if not 0 < shallow <= len(skips):
        raise ValueError(f"the UNet has {len(skips)} resnets on the way up, not {shallow}")
    return skips[-shallow]
