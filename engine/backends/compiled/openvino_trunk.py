"""What the rows of one image have in common, computed once: the UNet up to its first cross-attention."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.backends.compiled.openvino_surgery import fold

LATENTS = "sample"
COMMON = (LATENTS, "timestep")
"""Inputs that both rows of a guided image have alike. All others are what a row is conditioned on."""


def share_trunk(model: Any) -> bool:
    """Have row i + R/2 of a batch of R take from row i what depends on latents and timestep alone.

    The two rows of a guided image differ in their conditioning, which the UNet of SD 1.x and 2.x first reads in
    cross-attention: what comes before is the same for both, to the bit. Returns whether there is such a part and the
    graph allowed it; a model that did not is spoilt.
    """
    fold(model)
    rows = model.input(LATENTS).get_shape()[0]
    trunk = _trunk(model)
    if rows % 2 or not trunk:
        return False
    half = rows // 2
    within = {op.get_name() for op in trunk}
    wanted = [_resized(output.get_shape(), rows, half) for op in trunk for output in op.outputs()]
    halves: dict[tuple[str, int], Any] = {}
    for op in trunk:
        for port, value in enumerate(op.input_values()):
            source = value.get_node()
            if source.get_name() in within or _is_constant(source):
                continue
            if list(value.get_shape())[:1] == [rows]:
                key = (source.get_name(), value.get_index())
                if key not in halves:
                    halves[key] = _first(value, half)
                op.input(port).replace_source_output(halves[key])
        _resize_target(op, rows, half)
    for op in trunk:
        for output in op.outputs():
            readers = [
                target for target in output.get_target_inputs() if target.get_node().get_name() not in within
            ]
            both = _twice(output) if readers else None
            for reader in readers:
                reader.replace_source_output(both)
    try:
        model.validate_nodes_and_infer_types()
    except RuntimeError:
        return False
    return wanted == [list(output.get_shape()) for op in trunk for output in op.outputs()]


def _trunk(model: Any) -> list[Any]:
    """Return the operators that read latents, and no conditioning, in order."""
    latents: set[str] = set()
    conditioned: set[str] = set()
    trunk = []
    for op in model.get_ordered_ops():
        name = op.get_name()
        if op.get_type_name() == "Parameter":
            names = op.output(0).get_names()
            if LATENTS in names:
                latents.add(name)
            elif not names.intersection(COMMON):
                conditioned.add(name)
            continue
        sources = {value.get_node().get_name() for value in op.input_values()}
        if sources & conditioned:
            conditioned.add(name)
        elif sources & latents and op.get_type_name() != "Result":
            latents.add(name)
            trunk.append(op)
    return _until_it_is_read_twice(trunk)


def _until_it_is_read_twice(trunk: list[Any]) -> list[Any]:
    """Drop operators from a trunk's end until what leaves it has several readers.

    What has one reader may be computed together with it, and rounded once where it would be twice: a query of
    attention and its scale, for one. What several read is there for itself, with or without a trunk.
    """
    within = {op.get_name() for op in trunk}
    for op in reversed(trunk):
        readers = [target.get_node() for output in op.outputs() for target in output.get_target_inputs()]
        if len(readers) < 2 and not any(reader.get_name() in within for reader in readers):
            within.remove(op.get_name())
    return [op for op in trunk if op.get_name() in within]


def _is_constant(op: Any) -> bool:
    """Whether an operator reads no input of the graph, as weights that are rounded do: no axis of it is of rows."""
    kind = op.get_type_name()
    return kind == "Constant" or (
        kind != "Parameter" and all(_is_constant(value.get_node()) for value in op.input_values())
    )


def _resized(shape: Any, rows: int, to: int) -> list[int]:
    sizes = list(shape)
    return [to, *sizes[1:]] if sizes[:1] == [rows] else sizes


def _resize_target(op: Any, rows: int, to: int) -> None:
    """Change the shape that a Reshape or a Broadcast asks for, where it names the number of rows."""
    from openvino import opset13 as ops

    target = op.input_value(1).get_node() if op.get_type_name() in ("Reshape", "Broadcast") else None
    if target is not None and target.get_type_name() == "Constant" and target.data.reshape(-1)[:1] == [rows]:
        sizes = np.array(_resized(target.data, rows, to), target.data.dtype)
        op.input(1).replace_source_output(ops.constant(sizes).output(0))


def _first(value: Any, count: int) -> Any:
    from openvino import opset13 as ops

    begin, end, step, axis = (np.array([number]) for number in (0, count, 1, 0))
    return ops.slice(value, begin, end, step, axis).output(0)


def _twice(value: Any) -> Any:
    from openvino import opset13 as ops

    return ops.concat([value, value], 0).output(0)
