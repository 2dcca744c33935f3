"""What is rewritten in a graph before OpenVINO compiles it: the same arithmetic, laid out as its CPU kernels want it.

All of it is for static shapes, and leaves a row's bits independent of its batch (tests/compiled).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from engine.backends.compiled.openvino_activations import activations_by_polynomials
from engine.backends.compiled.openvino_surgery import fold, keep_in_float32, keeps_float32, replace

REWRITES = "7"
"""Stands in the key of a compiled graph: to be counted on when a module of rewrites changes."""

LARGEST_PARTED_BYTES = 16 << 20
"""Weights of a linear layer that is parted, at most: those of SD 1.5 at 640 channels have 13 MB."""

SPLIT = 2**16 + 1
"""Splits a float32 into what bfloat16 holds, its upper 8 bits, and the rest.

Source: T. J. Dekker, A floating-point technique for extending the available precision, 1971.
"""

CHANNELS = 16
"""float32 values in a vector register of 512 bits, which is how many channels a block of OpenVINO's has."""


def rewrite_for_fast_products(model: Any, *, spread: bool) -> None:
    """Rewrite what is faster where products are in bfloat16 or int8: so quick that all else counts.

    ``spread`` asks for ``spread_group_norms``, whose many small kernels cost memory.
    """
    if spread:
        spread_group_norms(model)
    cut_before_linear(model)
    activations_by_polynomials(model)
    widen_convolutions(model)


def spread_group_norms(model: Any) -> int:
    """Write each GroupNormalization as reductions over pixels and one multiplication; return how many they were.

    OpenVINO's own way (a reshape and MVN) needs planar memory, while convolutions leave and take channels-last: every
    normalisation costs two copies of the picture. Sums over pixels and a scale and shift for each channel run in place.
    What comes of the sums stays in float32 (``keep_in_float32``), or nothing would be left of E[x^2] - E[x]^2. Where
    OpenVINO knows no way to ask for that, nothing is rewritten.
    """
    if not keeps_float32():
        return 0
    found = [op for op in model.get_ordered_ops() if op.get_type_name() == "GroupNormalization"]
    for op in found:
        replace(op.output(0), _spread(op))
    if found:
        model.validate_nodes_and_infer_types()
    return len(found)


def _spread(norm: Any) -> Any:
    from openvino import opset13 as ops

    x = norm.input_value(0)
    channels, *sides = x.get_shape()[1:]
    attributes = norm.get_attributes()
    groups = attributes["num_groups"]
    scale, bias = (
        ops.reshape(norm.input_value(index), [1, groups, channels // groups], special_zero=False)
        for index in (1, 2)
    )
    pixels, members = np.arange(2, 2 + len(sides)), np.array([2])
    means = ops.reduce_mean(x, pixels, keep_dims=False)
    lengths = ops.reduce_l2(x, pixels, keep_dims=False)

    def by_group(value: Any) -> Any:
        return ops.reshape(value, [-1, groups, channels // groups], special_zero=False)

    def by_channel(value: Any) -> Any:
        return ops.reshape(value, [-1, channels, *(1 for _ in sides)], special_zero=False)

    own = by_group(means)
    mean = ops.reduce_mean(own, members, keep_dims=True)
    length = ops.reduce_l2(by_group(lengths), members, keep_dims=True)
    share = np.float32(groups / channels / prod(sides))
    squares = ops.multiply(ops.multiply(length, length), share)
    # Not below zero, where all values are alike.
    variance = ops.relu(ops.subtract(squares, ops.multiply(mean, mean)))
    factor = ops.divide(scale, ops.sqrt(ops.add(variance, np.float32(attributes["epsilon"]))))
    # Each channel is centred on its own mean as bfloat16 has it, so that rounding it costs nothing.
    larger = ops.multiply(own, np.float32(SPLIT))
    centre = ops.subtract(larger, ops.subtract(larger, own))
    shift = ops.add(ops.multiply(ops.subtract(centre, mean), factor), bias)
    centre, factor, shift = small = [by_channel(value) for value in (centre, factor, shift)]
    keep_in_float32(small, after=(means, lengths))
    return ops.add(ops.multiply(ops.subtract(x, centre), factor), shift).output(0)


def cut_before_linear(model: Any) -> int:
    """Compute the parts that are cut from a linear layer's output as layers of their own; return how many parts.

    GEGLU does that: one product, cut into the values and their gate. OpenVINO copies both parts before it goes on; of
    two products nothing is copied. Large layers stay whole: there the copies are little beside the product, while the
    weights are held twice until the graph is compiled.
    """
    fold(model)
    found = 0
    for op in model.get_ordered_ops():
        layer = _linear(op)
        if layer is None:
            continue
        readers = [target.get_node() for target in op.output(0).get_target_inputs()]
        cuts = [(reader, cut) for reader in readers if (cut := _last_axis(reader)) is not None]
        if len(readers) < 2 or len(cuts) < len(readers) or not layer.is_parted_by([cut for _, cut in cuts]):
            continue
        for reader, cut in cuts:
            replace(reader.output(0), layer.part(cut))
            found += 1
    if found:
        model.validate_nodes_and_infer_types()
    return found


@dataclass(frozen=True, slots=True)
class _Linear:
    """``x @ weight.T + bias``, with the weight ``[outputs, inputs]`` of that name."""

    name: str
    x: Any
    weight: np.ndarray[Any, Any]
    bias: np.ndarray[Any, Any]

    def is_parted_by(self, cuts: Sequence[slice]) -> bool:
        """Say whether the cuts have nothing in common, and the weights are few enough to be copied."""
        taken = [place for cut in cuts for place in range(*cut.indices(len(self.weight)))]
        return len(taken) == len(set(taken)) and self.weight.nbytes <= LARGEST_PARTED_BYTES

    def part(self, cut: slice) -> Any:
        """Return the outputs ``cut`` as a layer of its own, with a copy of its weights, which keeps its name."""
        from openvino import opset13 as ops

        weight = ops.constant(self.weight[cut].copy(), shared_memory=True)
        weight.set_friendly_name(self.name)
        bias = ops.constant(self.bias[..., cut].copy())
        return ops.add(ops.matmul(self.x, weight, transpose_a=False, transpose_b=True), bias).output(0)


def _linear(op: Any) -> _Linear | None:
    """Return the linear layer that ends in this operator."""
    if op.get_type_name() != "Add":
        return None
    sides = [value.get_node() for value in op.input_values()]
    for product, bias in (sides, sides[::-1]):
        if (product.get_type_name(), bias.get_type_name()) != ("MatMul", "Constant"):
            continue
        weight, turned = product.input_value(1).get_node(), product.get_attributes()
        if weight.get_type_name() != "Constant" or turned["transpose_a"] or not turned["transpose_b"]:
            continue
        if weight.data.ndim == 2 and bias.data.shape[-1:] == weight.data.shape[:1]:
            return _Linear(weight.get_friendly_name(), product.input_value(0), weight.data, bias.data)
    return None


def _last_axis(op: Any) -> slice | None:
    """Return what a Slice takes of the last axis, in steps of one; None for anything else."""
    if op.get_type_name() != "Slice" or op.get_input_size() != 5:
        return None
    given = [op.input_value(index).get_node() for index in range(1, 5)]
    if any(node.get_type_name() != "Constant" or node.data.size != 1 for node in given):
        return None
    first, end, step, axis = (int(node.data.reshape(-1)[0]) for node in given)
    rank = len(op.input_value(0).get_shape())
    return slice(first, end) if step == 1 and axis in (-1, rank - 1) else None


def widen_convolutions(model: Any) -> int:
    """Give convolutions channels of zeros up to whole blocks of `CHANNELS`; return how many they were.

    The first convolution reads a latent's 4 or 12 channels, for which OpenVINO's kernels have no blocked layout.
    """
    from openvino import opset13 as ops

    found = 0
    for op in model.get_ordered_ops():
        weight = op.input_value(1).get_node() if op.get_type_name() == "Convolution" else None
        if weight is None or weight.get_type_name() != "Constant":
            continue
        missing = -weight.data.shape[1] % CHANNELS
        if not missing:
            continue
        around = [(0, missing) if axis == 1 else (0, 0) for axis in range(weight.data.ndim)]
        begin, end = np.array(around).T
        x = ops.pad(op.input_value(0), begin, end, "constant", np.float32(0))
        op.input(0).replace_source_output(x.output(0))
        op.input(1).replace_source_output(ops.constant(np.pad(weight.data, around)).output(0))
        found += 1
    if found:
        model.validate_nodes_and_infer_types()
    return found
