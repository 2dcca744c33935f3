"""Linear layers and convolutions with weights packed once for oneDNN, and what follows them fused in.

torch keeps no packed weights in eager mode: every call reorders them, which at small batches costs up to half of the
call. The operators below are those that torch.compile emits for a CPU (torch/_inductor/fx_passes/mkldnn_fusion.py);
they need no compiler. ``available()`` says whether this torch has them.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

Tensor = torch.Tensor
# Not torch's public interface: this module alone touches it, and ``available`` looks before anyone leaps.
_OPS: Any = torch.ops.mkldnn
_NN: Any = torch._C._nn  # noqa: SLF001


def available() -> bool:
    """Tell whether this build of torch has oneDNN and the operators that take packed weights."""
    backend: Any = torch.backends.mkldnn
    return bool(backend.is_available()) and all(
        hasattr(_OPS, name)
        for name in ("_linear_pointwise", "_convolution_pointwise", "_reorder_linear_weight")
    )


class PackedLinear:
    """``x @ weight.T + bias`` on ``[rows, tokens, inputs]``; ``rows_hint`` is the number of vectors expected."""

    def __init__(self, weight: Tensor, bias: Tensor | None, rows_hint: int) -> None:
        self.weight: Any = _OPS._reorder_linear_weight(weight.detach().contiguous(), rows_hint)  # noqa: SLF001
        self.bias = None if bias is None else bias.detach()

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        y: Tensor = _OPS._linear_pointwise(x, self.weight, self.bias, "none", [], "")  # noqa: SLF001
        return y

    def gelu(self, x: Tensor) -> Tensor:
        """Apply the layer and the exact (erf) GELU."""
        y: Tensor = _OPS._linear_pointwise(x, self.weight, self.bias, "gelu", [], "none")  # noqa: SLF001
        return y

    def combined(self, x: Tensor, other: Tensor, how: Literal["add", "mul"]) -> Tensor:
        """Apply the layer and add, or multiply by, a tensor of the output's shape."""
        y: Tensor = _OPS._linear_pointwise.binary(x, other, self.weight, self.bias, how)  # noqa: SLF001
        return y


class PackedConv:
    """A convolution on channels-last images, kept as ``[B, H * W, C]`` tokens between layers."""

    def __init__(self, conv: nn.Conv2d, shape_hint: tuple[int, int, int, int]) -> None:
        assert conv.groups == 1 and conv.dilation == (1, 1)
        self.padding = list(conv.padding)
        self.stride = list(conv.stride)
        self.bias = None if conv.bias is None else conv.bias.detach()
        self.weight: Any = _NN.mkldnn_reorder_conv2d_weight(
            conv.weight.detach().to_mkldnn(), self.padding, self.stride, [1, 1], 1, list(shape_hint)
        )

    def __call__(self, image: Tensor) -> Tensor:
        """Convolve a channels-last ``[B, C, H, W]``."""
        y: Tensor = _OPS._convolution_pointwise(  # noqa: SLF001
            image, self.weight, self.bias, self.padding, self.stride, [1, 1], 1, "none", [], ""
        )
        return y

    def plus(self, image: Tensor, other: Tensor) -> Tensor:
        """Convolve and add a tensor of the output's shape."""
        y: Tensor = _OPS._convolution_pointwise.binary(  # noqa: SLF001
            image,
            other,
            self.weight,
            self.bias,
            self.padding,
            self.stride,
            [1, 1],
            1,
            "add",
            1.0,
            None,
            [],
            None,
        )
        return y
