"""Keys and values as inputs of an OpenVINO graph, layer by layer, in the order that its attention reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from engine.backends.compiled.openvino_surgery import fold, only_reader, replace

Part = Literal["keys", "values"]
_PARTS: dict[tuple[int, ...], Part] = {(0, 2, 3, 1): "keys", (0, 2, 1, 3): "values"}
"""What follows a layer's columns ``[B, T, heads, d]``: keys as ``[B, heads, d, T]``, values as ``[B, heads, T, d]``."""


def read_by_layer(model: Any, packed: Sequence[str], dtype: str) -> bool:
    """Replace inputs ``[B, T, D]`` by one for each layer's keys and values; return whether the graph allowed it.

    Packed, every tick cuts the conditioning of all rows into layers, converts it to the UNet's type and transposes it,
    though it is the same as in the last tick. The new inputs are ``NAME/FIRST COLUMN/keys`` ``[B, heads, d, T]`` and
    ``NAME/FIRST COLUMN/values`` ``[B, heads, T, d]``, as the products of attention read them.
    """
    import openvino
    from openvino import opset13 as ops

    fold(model)
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
        replace(end, ops.convert(parameter, end.get_element_type().to_string()).output(0))
    for name in packed:
        model.remove_parameter(model.input(name).get_node())
    model.validate_nodes_and_infer_types()
    return True


def _cut(cut: Any) -> tuple[int, Part, Any] | None:
    """Return first column, part and output of a slice's way into attention; None for anything else."""
    if cut.get_type_name() != "Slice":
        return None
    first = cut.input_value(1).get_node()
    split = only_reader(cut)
    turned = None if split is None else only_reader(split)
    if turned is None or first.get_type_name() != "Constant":
        return None
    if (split.get_type_name(), turned.get_type_name()) != ("Reshape", "Transpose"):
        return None
    order = turned.input_value(1).get_node()
    if order.get_type_name() != "Constant":
        return None
    part = _PARTS.get(tuple(int(axis) for axis in order.data))
    return None if part is None else (int(first.data.reshape(-1)[0]), part, turned.output(0))
