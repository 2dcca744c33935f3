"""Products in int8 for OpenVINO: convolutions and linear layers of 8-bit weights and 8-bit activations.

A graph is marked by FakeQuantize operators, which round to as many values as 8 bits have; OpenVINO's CPU plugin then
computes such products in integers (its low precision transformations). Limits are constants, so a row's bits do not
depend on its batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends.compiled.openvino_rewrites import CHANNELS, cut_before_linear
from engine.backends.compiled.openvino_surgery import static
from engine.export.activations import Range, Ranges

SMOOTHING = 0.8
"""How much of the differences between an activation's channels its weights take over, from 0 to 1.

Source: Xiao et al., "SmoothQuant", 2022 (arXiv 2211.10438), who name it alpha. At 0.8 the UNet in the box errs a third
less than at 0 (docs/adr/0014).
"""

LEAST = 1e-6
"""What a channel's greatest value is taken for, at least: one that is always zero would be divided by."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution or a linear layer whose weights are known, and which has arithmetic enough to be worth it."""

    name: str
    op: Any
    weight: Floats
    inputs: int
    """The axis of the weight that its input's channels are on."""
    outputs: int
    channel: int
    """The axis of the activation that they are on."""

    def along(self, values: Floats, rank: int, axis: int) -> Floats:
        """Return values of channels so that they are broadcast along an axis of something of this rank."""
        return values.reshape([-1 if each == axis else 1 for each in range(rank)])


def layers(model: Any) -> Iterator[Layer]:
    """Yield what can be computed in int8, in order.

    What computes of a vector a row, as the timestep's embedding is, and what reads or gives fewer channels than a
    register holds, as first and last convolutions do, has little arithmetic and much influence: not these.
    """
    for op in model.get_ordered_ops():
        kind = op.get_type_name()
        if kind not in ("Convolution", "MatMul"):
            continue
        weight, rank = op.input_value(1).get_node(), op.get_input_partial_shape(0).rank.get_length()
        if weight.get_type_name() != "Constant" or rank < 3:
            continue
        if kind == "Convolution":
            inputs, outputs, channel = 1, 0, 1
        elif weight.data.ndim == 2 and not op.get_attributes()["transpose_a"]:
            inputs, outputs = (1, 0) if op.get_attributes()["transpose_b"] else (0, 1)
            channel = rank - 1
        else:
            continue
        if min(weight.data.shape[inputs], weight.data.shape[outputs]) >= CHANNELS:
            name = weight.get_friendly_name().removesuffix(".weight")
            yield Layer(name, op, weight.data, inputs, outputs, channel)


def quantise(model: Any, ranges: Ranges) -> int:
    """Mark all layers for int8, by the ranges of their inputs; return how many they were.

    To be done before other rewrites: it knows layers by the constants of their weights. Raises ``KeyError`` with a
    layer's name where ranges lack it or have another number of channels.
    """
    _part(model)
    found = 0
    for layer in list(layers(model)):
        known = ranges.get(layer.name)
        if known is None or len(known.low) != layer.weight.shape[layer.inputs]:
            raise KeyError(layer.name)
        _quantise(layer, known)
        found += 1
    if found:
        model.validate_nodes_and_infer_types()
    return found


def watch(model: Any) -> list[str]:
    """Let a graph give, beside its own results, the least and greatest value of each channel of each layer's input.

    Returns the layers' names, once each. ``seen`` reads the results, which are called ``i.low`` and ``i.high``.
    """
    from openvino import opset13 as ops

    _part(model)
    names: list[str] = []
    for layer in list(layers(model)):
        if layer.name in names:
            continue
        value = layer.op.input_value(0)
        rest = np.array([axis for axis in range(1, len(value.get_shape())) if axis != layer.channel])
        for end, reduced in (("low", ops.reduce_min), ("high", ops.reduce_max)):
            limits = reduced(value, rest, keep_dims=False)
            limits.output(0).set_names({f"{len(names)}.{end}"})
            model.add_results([ops.result(limits)])
        names.append(layer.name)
    return names


def watched(names: Sequence[str]) -> tuple[str, ...]:
    """Return what ``watch`` called its results."""
    return tuple(f"{number}.{end}" for number in range(len(names)) for end in ("low", "high"))


def seen(names: Sequence[str], results: Mapping[str, Floats], rows: Sequence[int]) -> dict[str, Range]:
    """Return the ranges of these rows, from results ``[B, C]`` of a graph that ``watch`` gave them."""
    return {
        name: Range(results[f"{number}.low"][rows].min(axis=0), results[f"{number}.high"][rows].max(axis=0))
        for number, name in enumerate(names)
    }


def _part(model: Any) -> None:
    """Compute the parts of a layer's output as layers of their own, where sizes are known: they share its range."""
    if static(model):
        cut_before_linear(model)


def _quantise(layer: Layer, known: Range) -> None:
    """Round a layer's input and its weights.

    Each channel of the input is divided by a factor that its weights are multiplied by, so that channels of small
    values are not rounded as coarsely as those of large ones. A convolution's input is divided by the rounding itself.
    A linear layer's is divided before: fused into MVN, OpenVINO 2026.4 takes limits of the last axis for the second's.
    """
    from openvino import opset13 as ops

    op, rank = layer.op, layer.op.get_input_partial_shape(0).rank.get_length()
    linear = op.get_type_name() == "MatMul"
    largest = np.maximum(np.maximum(-known.low, known.high), LEAST)
    rest = tuple(axis for axis in range(layer.weight.ndim) if axis != layer.inputs)
    heaviest = np.maximum(np.abs(layer.weight).max(axis=rest), LEAST)
    factor = largest**SMOOTHING / heaviest ** (1 - SMOOTHING)
    factor = (factor / factor.max()).astype(np.float32)
    limits = [np.full([1] * rank, limit, np.float32) for limit in _limits(known, factor, symmetric=linear)]
    by_channel, x = layer.along(factor, rank, layer.channel), op.input_value(0)
    if linear:
        rounded = ops.fake_quantize(ops.multiply(x, 1 / by_channel), *limits, *limits, 256)
    else:
        rounded = ops.fake_quantize(x, *(limit * by_channel for limit in limits), *limits, 256)
    weight = layer.weight * layer.along(factor, layer.weight.ndim, layer.inputs)
    over = tuple(axis for axis in range(weight.ndim) if axis != layer.outputs)
    reach = np.maximum(np.abs(weight).max(axis=over, keepdims=True), LEAST)
    weights = ops.fake_quantize(ops.constant(weight), -reach, reach, -reach, reach, 255)
    op.input(0).replace_source_output(rounded.output(0))
    op.input(1).replace_source_output(weights.output(0))


def _limits(known: Range, factor: Floats, *, symmetric: bool) -> tuple[np.float32, np.float32]:
    """Return the limits of all channels once they are divided, with zero on one of the 256 steps between.

    OpenVINO's products of linear layers want it in the middle.
    """
    low, high = min(0.0, float((known.low / factor).min())), max(0.0, float((known.high / factor).max()))
    if low == 0:
        return np.float32(0), np.float32(max(high, LEAST))
    if symmetric:
        reach = max(-low, high)
        return np.float32(-reach * 128 / 127), np.float32(reach)
    step = max(high - low, LEAST) / 255
    steps = round(-low / step)
    return np.float32(-steps * step), np.float32((255 - steps) * step)
