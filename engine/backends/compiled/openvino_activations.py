"""SiLU and GELU for OpenVINO in bfloat16: polynomials, exact to less than bfloat16 tells apart.

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
        """Take coefficients for ``c`` in [-1, 1] and a rise from -1 to 1."""
        scaled = tuple(value / limit ** (2 * power + 1) for power, value in enumerate(inner))
        return cls(limit=limit, inner=scaled, outer=tuple(value / 2 for value in outer))

    def times(self, x: Any) -> Any:
        """Return the graph of ``x`` times its rise."""
        from openvino import opset13 as ops

        held = ops.clamp(x, -self.limit, self.limit)
        t = ops.multiply(held, _polynomial(ops.multiply(held, held), self.inner))
        rise = ops.multiply(t, _polynomial(ops.multiply(t, t), self.outer))
        return ops.multiply(x, ops.add(rise, np.float32(0.5)))


SIGMOID = Rise.of(
    7.6,
    (2.33660832, -2.14585941, 0.983040008),
    (1.61967956, -1.07310788, 0.577129265, -0.147346086),
)
"""Within 3.8e-4 of the logistic function."""

NORMAL = Rise.of(
    3.7,
    (1.8165989952, -1.3339534912, 0.4502304488),
    (1.62437548, -0.755250514, 0.138287669),
)
"""Within 6e-5 of the normal distribution."""


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
