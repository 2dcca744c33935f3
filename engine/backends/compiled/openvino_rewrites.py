"""What is rewritten in a graph before OpenVINO compiles it: the same arithmetic, laid out as its CPU kernels want it.

Both rewrites are for static shapes, and both leave a row's bits independent of its batch (tests/compiled).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Literal

import numpy as np

REWRITES = "1"
"""Says what this module does, in the key of a compiled graph: to be counted on when it changes."""

Part = Literal["keys", "values"]
_PARTS: dict[tuple[int, ...], Part] = {(0, 2, 3, 1): "keys", (0, 2, 1, 3): "values"}
"""What follows a layer's columns ``[B, T, heads, d]``: keys as ``[B, heads, d, T]``, values as ``[B, heads, T, d]``."""


def static(model: Any) -> bool:
    """Whether every dimension of every input is known."""
    return all(port.partial_shape.is_static for port in model.inputs)


def spread_group_norms(model: Any) -> int:
    """Write each GroupNormalization as reductions over pixels and one multiplication; return how many they were.

    OpenVINO's own way (a reshape and MVN) needs planar memory, while convolutions leave and take channels-last: every
    normalisation costs two copies of the picture. Sums over pixels and a scale and shift for each channel run in place.
    Each channel is centred on its own mean before it is squared, so nothing cancels, in bfloat16 as in float32.
    """
    found = [op for op in model.get_ordered_ops() if op.get_type_name() == "GroupNormalization"]
    for op in found:
        _replace(op.output(0), _spread(op))
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

    def by_group(value: Any) -> Any:
        return ops.reshape(value, [-1, groups, channels // groups], special_zero=False)

    def by_channel(value: Any) -> Any:
        return ops.reshape(value, [-1, channels, *(1 for _ in sides)], special_zero=False)

    pixels, members = np.arange(2, 2 + len(sides)), np.array([2])
    mean = ops.reduce_mean(x, pixels, keep_dims=True)
    centred = ops.subtract(x, mean)
    length = by_group(ops.reduce_l2(centred, pixels, keep_dims=True))
    own = by_group(mean)
    offset = ops.subtract(own, ops.reduce_mean(own, members, keep_dims=True))
    share = np.float32(1 / prod(sides))
    spread = ops.add(ops.multiply(ops.multiply(length, length), share), ops.multiply(offset, offset))
    variance = ops.reduce_mean(spread, members, keep_dims=True)
    factor = ops.divide(scale, ops.sqrt(ops.add(variance, np.float32(attributes["epsilon"]))))
    shift = ops.add(ops.multiply(offset, factor), bias)
    return ops.add(ops.multiply(centred, by_channel(factor)), by_channel(shift)).output(0)


def read_by_layer(model: Any, packed: Sequence[str], dtype: str) -> bool:
    """Replace inputs ``[B, T, D]`` by one for each layer's keys and values; return whether the graph allowed it.

    Packed, every tick cuts the conditioning of all rows into layers, converts it to the UNet's type and transposes it,
    though it is the same as in the last tick. The new inputs are ``NAME/FIRST COLUMN/keys`` ``[B, heads, d, T]`` and
    ``NAME/FIRST COLUMN/values`` ``[B, heads, T, d]``, as the products of attention read them.
    """
    import openvino
    from openvino import opset13 as ops
    from openvino.passes import ConstantFolding, Manager

    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(model)  # a layer's first column is computed from the shape of the input
    cuts = []
    for name in packed:
        parameter = model.input(name).get_node()
        for target in parameter.output(0).get_target_inputs():
            cut = _cut(target.get_node())
            if cut is None:
                return False
            cuts.append((name, *cut))
    for name, first, part, end in cuts:
        parameter = ops.parameter(end.get_shape(), getattr(openvino.Type, dtype))
        parameter.output(0).set_names({f"{name}/{first}/{part}"})
        model.add_parameters([parameter])
        _replace(end, ops.convert(parameter, end.get_element_type().to_string()).output(0))
    for name in packed:
        model.remove_parameter(model.input(name).get_node())
    model.validate_nodes_and_infer_types()
    return True


def _cut(cut: Any) -> tuple[int, Part, Any] | None:
    """Return first column, part and output of a slice's way into attention; None for anything else."""
    if cut.get_type_name() != "Slice":
        return None
    first = cut.input_value(1).get_node()
    split = _only_reader(cut)
    turned = None if split is None else _only_reader(split)
    if turned is None or first.get_type_name() != "Constant":
        return None
    if (split.get_type_name(), turned.get_type_name()) != ("Reshape", "Transpose"):
        return None
    order = turned.input_value(1).get_node()
    if order.get_type_name() != "Constant":
        return None
    part = _PARTS.get(tuple(int(axis) for axis in order.data))
    return None if part is None else (int(first.data.reshape(-1)[0]), part, turned.output(0))


def _only_reader(node: Any) -> Any:
    readers = node.output(0).get_target_inputs()
    return next(iter(readers)).get_node() if len(readers) == 1 else None


def _replace(output: Any, by: Any) -> None:
    for reader in output.get_target_inputs():
        reader.replace_source_output(by)
