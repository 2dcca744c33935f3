"""A module to an ONNX graph without its weights, by torch's tracing exporter."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch
from torch import nn

from engine.export.settings import OPSETS

if TYPE_CHECKING:
    import onnx

TRACED_OPSET = 20
"""The newest that the tracing exporter knows. Up to 22 only types were added to the operators used here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSource:
    """A module to export: example inputs by name in the order of ``forward``, output names, dynamic axes by name."""

    name: str
    module: nn.Module
    inputs: Mapping[str, torch.Tensor]
    outputs: Sequence[str]
    axes: Mapping[str, Mapping[int, str]]
    weights_of: str | None = None
    """The graph, written before, whose weights these are; None for weights of its own."""


def trace_graph(source: GraphSource, *, opset: int) -> onnx.ModelProto:
    """Trace a module; its parameters and buffers become inputs of the graph under their own names.

    So no weight is copied on the way, whatever the model's size, and a graph's weights have the names that the model's
    files have. Raises what torch raises for a module that cannot be traced.
    """
    import onnx

    assert opset in OPSETS, opset
    written = io.BytesIO()
    with torch.inference_mode(), warnings.catch_warnings(), _plain_operators(opset):
        warnings.simplefilter("ignore")  # the tracer tells of every shape that it reads
        torch.onnx.export(
            source.module.eval(),
            tuple(source.inputs.values()),
            written,  # type: ignore[arg-type]  # the tracing exporter takes streams
            dynamo=False,
            opset_version=TRACED_OPSET,
            export_params=False,
            do_constant_folding=False,
            input_names=list(source.inputs),
            output_names=list(source.outputs),
            dynamic_axes={name: dict(axes) for name, axes in source.axes.items()},
        )
    model = onnx.load_from_string(written.getvalue())
    (domain,) = [entry for entry in model.opset_import if not entry.domain]
    domain.version = opset
    return model


@contextlib.contextmanager
def _plain_operators(opset: int) -> Iterator[None]:
    """Trace attention as four plain operators and, from opset 21, GroupNorm as the operator of that name."""
    from torch.onnx.utils import register_custom_op_symbolic, unregister_custom_op_symbolic

    with patch.object(nn.functional, "scaled_dot_product_attention", _attention):
        if opset < 21:
            yield
            return
        register_custom_op_symbolic("aten::group_norm", _group_norm, TRACED_OPSET)
        try:
            yield
        finally:
            unregister_custom_op_symbolic("aten::group_norm", TRACED_OPSET)


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Compute ``F.scaled_dot_product_attention``; the exporter's own translation reads the scale from shapes."""
    assert not dropout_p and not enable_gqa
    if scale is None:
        scale = 1 / math.sqrt(int(query.shape[-1]))
    scores = torch.matmul(query * scale, key.transpose(-1, -2))
    if is_causal:
        length = int(query.shape[-2])
        attn_mask = torch.full((length, length), -math.inf, dtype=scores.dtype).triu(1)
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=scores.dtype).masked_fill(~attn_mask, -math.inf)
        scores = scores + attn_mask
    return torch.matmul(torch.softmax(scores, dim=-1), value)


def _group_norm(g: Any, x: Any, groups: Any, weight: Any, bias: Any, eps: Any, cudnn: Any) -> Any:
    from torch.onnx.symbolic_helper import _maybe_get_const

    return g.op(
        "GroupNormalization",
        x,
        weight,
        bias,
        num_groups_i=_maybe_get_const(groups, "i"),
        epsilon_f=_maybe_get_const(eps, "f"),
    )
