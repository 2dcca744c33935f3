"""A layer's attention to its prompt and to its reference, computed as one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.backends.compiled.by_layer import MASK
from engine.backends.compiled.openvino_surgery import only_reader, replace

KEYS = 32
"""What a number of keys is rounded up to: one step of a product of AMX tiles in bfloat16."""

SMALLEST = np.finfo(np.float32).tiny
"""Of a sum that is divided by: the weights of a part may all be too small for float32, beside those of the other."""


def join_attention(model: Any) -> int:
    """Compute the two attentions of each layer of an IP-Adapter as one; return how many layers they were.

    A layer adds what its query finds in the prompt and in the reference, each with a softmax of its own. One softmax
    over the keys of both gives weights that are right but for a factor for each part. Its values ``[T, 2 * (d + 1)]``
    have the prompt's in the first columns and the reference's in the others, with a column of ones for each: so the
    product has the sums of both parts beside them, to divide by. It costs little more than the prompt's attention
    alone, as most of that is not arithmetic.

    The inputs of ``read_by_layer`` become ``kv_text+kv_ip/FIRST+FIRST+VALUES/keys`` and ``.../values``: first columns
    of prompt and reference, and of the reference's values. Keys that only fill up, and those of tokens that ``ip_mask``
    hides, have no values and no ones. Nor may they take all the weight, as softmax looks for the largest score among
    them too: they have to be one of the prompt's own. Two parts whose largest scores lie more than 87 apart underflow:
    the smaller one finds nothing.

    What is another sum, has a mask over its prompt or another one over its reference stays as it is.
    """
    found = 0
    for op in model.get_ordered_ops():
        if op.get_type_name() != "Add":
            continue
        parts = [_attention(value) for value in op.input_values()]
        by_input = {part.packed: part for part in parts if part is not None}
        if by_input.keys() != {"kv_text", "kv_ip"}:
            continue
        text, reference = by_input["kv_text"], by_input["kv_ip"]
        if text.query == reference.query and not text.masked and reference.masked:
            replace(op.output(0), _joined(model, text, reference))
            found += 1
    if found:
        _remove_unread(model)
        model.validate_nodes_and_infer_types()
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attention:
    """Softmax of ``query`` and keys, times values, with heads merged by ``transpose`` and ``reshape``."""

    packed: str
    first: tuple[str, str]
    """The first columns of keys and values."""
    query: Any
    masked: bool
    """Whether ``ip_mask`` is added to its scores."""
    keys: list[int]
    """Shape of the keys, ``[B, heads, d, T]``."""
    kind: Any
    """Element type of keys and values."""
    transpose: Any
    reshape: Any


def _attention(merged: Any) -> _Attention | None:
    """Return the attention that a sum adds, if it is one that reads its keys and values by layer."""
    reshape = merged.get_node()
    transpose = _source(reshape, "Reshape")
    values = _source(transpose, "Transpose")
    softmax = _source(values, "MatMul")
    scores = _source(softmax, "Softmax")
    masked = scores is not None and scores.get_type_name() == "Add"
    if masked:
        if not _is_mask(scores.input_value(1)) or only_reader(scores) is None:
            return None
        scores = scores.input_value(0).get_node()
    if scores is None or scores.get_type_name() != "MatMul":
        return None
    if any(only_reader(op) is None for op in (reshape, transpose, values, softmax, scores)):
        return None
    inputs = [_by_layer(product.input_value(1)) for product in (scores, values)]
    if None in inputs or softmax.get_axis() not in (-1, 3):
        return None
    (keys_of, keys_first), (values_of, values_first) = (each for each in inputs if each is not None)
    if keys_of != values_of:
        return None
    return _Attention(
        packed=keys_of,
        first=(keys_first, values_first),
        query=scores.input_value(0),
        masked=masked,
        keys=list(scores.input_value(1).get_shape()),
        kind=scores.input_value(1).get_node().input_value(0).get_element_type(),
        transpose=transpose,
        reshape=reshape,
    )


def _is_mask(value: Any) -> bool:
    """Whether a value is ``ip_mask``, brought to the shape of scores."""
    op = value.get_node()
    while op.get_type_name() == "Unsqueeze":
        op = op.input_value(0).get_node()
    return op.get_type_name() == "Parameter" and MASK in op.output(0).get_names()


def _remove_unread(model: Any) -> None:
    """Remove inputs that no result needs any more: those whose place one for both has taken, and the mask."""
    needed: set[str] = set()
    ahead = list(model.get_results())
    while ahead:
        op = ahead.pop()
        if op.get_name() not in needed:
            needed.add(op.get_name())
            ahead += [value.get_node() for value in op.input_values()]
    for parameter in model.get_parameters():
        if parameter.get_name() not in needed:
            model.remove_parameter(parameter)


def _source(op: Any, kind: str) -> Any:
    """Return what an operator of this kind computes from; None where it is of another."""
    return None if op is None or op.get_type_name() != kind else op.input_value(0).get_node()


def _by_layer(value: Any) -> tuple[str, str] | None:
    """Return input and first column of a parameter that ``read_by_layer`` made."""
    convert = value.get_node()
    parameter = _source(convert, "Convert")
    if parameter is None or parameter.get_type_name() != "Parameter":
        return None
    packed, _, rest = next(iter(parameter.output(0).get_names())).partition("/")
    return (packed, rest.partition("/")[0]) if rest else None


def _joined(model: Any, text: _Attention, reference: _Attention) -> Any:
    from openvino import opset13 as ops

    rows, heads, wide, tokens = text.keys
    tokens = -(-(tokens + reference.keys[3]) // KEYS) * KEYS
    keys = _input(model, text, reference, "keys", [rows, heads, wide, tokens])
    values = _input(model, text, reference, "values", [rows, heads, tokens, 2 * (wide + 1)])
    weights = ops.softmax(ops.matmul(text.query, keys, False, False), 3)
    parts = ops.variadic_split(ops.matmul(weights, values, False, False), 3, [wide, 1, wide, 1])
    found, total, found_too, total_too = (parts.output(index) for index in range(4))
    attended = ops.add(
        ops.divide(found, ops.maximum(total, SMALLEST)),
        ops.divide(found_too, ops.maximum(total_too, SMALLEST)),
    )
    turned = ops.transpose(attended, text.transpose.input_value(1))
    special = text.reshape.get_attributes()["special_zero"]
    return ops.reshape(turned, text.reshape.input_value(1), special_zero=special).output(0)


def _input(model: Any, text: _Attention, reference: _Attention, part: str, shape: list[int]) -> Any:
    """Put one input for a part of both in the place of theirs."""
    from openvino import opset13 as ops

    index = 0 if part == "keys" else 1
    firsts = f"{text.first[index]}+{reference.first[index]}+{reference.first[1]}"
    parameter = ops.parameter(shape, text.kind)
    parameter.output(0).set_names({f"{text.packed}+{reference.packed}/{firsts}/{part}"})
    model.add_parameters([parameter])
    return ops.convert(parameter, "f32")
