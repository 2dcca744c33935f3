"""SiLU and GELU for OpenVINO beside fast products: polynomials, off by less of ``x`` than bfloat16 rounds it by.

Both are ``x`` times a function that rises from 0 to 1. OpenVINO computes those by an exponential and a division, or by
a polynomial whose coefficients are looked up for each value: either takes longer than all else in a normalisation. Here
it is ``1/2 + t * q(t * t)`` with ``t = c * p(c * c)``, where ``c`` is ``x`` held to an interval beyond which the
function is flat. A polynomial of a polynomial comes near a step with far fewer operations than one polynomial of its
degree. The coefficients make the largest error small: they were found by L-BFGS on norms of growing power.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.backends.compiled.openvino_surgery import only_reader, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Rise:
    """``1/2 + t * q(t * t)`` with ``t = c * p(c * c)`` and ``c`` = ``x`` within ``[-limit, limit]``.

    ``inner`` are the coefficients of p and ``outer`` those of q, lowest powers first.
    """

    limit: float
    inner: tuple[float, ...]
    outer: tuple[float, ...]

    @classmethod
    def of(cls, limit: float, inner: tuple[float, ...], outer: tuple[float, ...]) -> Rise:
        """Take coefficients for ``c`` in [-1, 1]; the rise is made to end in 0 and 1, so that nothing grows beyond."""
        scaled = tuple(value / limit ** (2 * power + 1) for power, value in enumerate(inner))
        t = sum(inner)
        end = t * sum(value * t ** (2 * power) for power, value in enumerate(outer))
        return cls(limit=limit, inner=scaled, outer=tuple(value / (2 * end) for value in outer))

    def times(self, x: Any) -> Any:
        """Return the graph of ``x`` times its rise."""
        from openvino import opset13 as ops

        held = ops.clamp(x, -self.limit, self.limit)
        t = ops.multiply(held, _polynomial(ops.multiply(held, held), self.inner))
        rise = ops.multiply(t, _polynomial(ops.multiply(t, t), self.outer))
        return ops.multiply(x, ops.add(rise, np.float32(0.5)))


SIGMOID = Rise.of(
    8.0, (1.4706864, -1.41679189, 0.659539962), (2.70616708, -5.01870789, 7.41493957, -5.08871612)
)
"""Within 4.8e-4 of the logistic function."""

NORMAL = Rise.of(3.8, (1.40855576, -1.06719578, 0.370007295), (2.15156141, -1.77256055, 0.590342152))
"""Within 7.3e-5 of the normal distribution."""


def activations_by_polynomials(model: Any) -> int:
    """Rewrite each SiLU, which is ``x * sigmoid(x)`` in the graph, and each GELU by erf; return how many they were."""
    found = 0
    for op in model.get_ordered_ops():
        kind, x = op.get_type_name(), op.input_value(0) if op.get_input_size() else None
        if kind == "Sigmoid":
            product = only_reader(op)
            if product is None or product.get_type_name() != "Multiply":
                continue
            if not any(_same(x, factor) for factor in product.input_values()):
                continue
            replace(product.output(0), SIGMOID.times(x).output(0))
        elif kind == "Gelu" and op.get_attributes()["approximation_mode"] == "ERF":
            replace(op.output(0), NORMAL.times(x).output(0))
        else:
            continue
        found += 1
    if found:
        model.validate_nodes_and_infer_types()
    return found


def _polynomial(x: Any, coefficients: tuple[float, ...]) -> Any:
    from openvino import opset13 as ops

    *rest, value = (np.float32(each) for each in coefficients)
    for coefficient in reversed(rest):
        value = ops.add(ops.multiply(x, value), coefficient)
    return value


def _same(one: Any, other: Any) -> bool:
    return one.get_node() is other.get_node() and one.get_index() == other.get_index()
