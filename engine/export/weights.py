"""A traced graph's weights: from the module straight to the file beside the graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import torch
from torch import nn

from engine.export.errors import GraphError

if TYPE_CHECKING:
    import onnx

ALIGNMENT = 4096
"""Offsets of weights are multiples of a page, so that runtimes may map the file instead of reading it."""

SMALL = 1024
"""Tensors of fewer bytes lie in the graph itself, where shape inference sees their values."""


def attach_weights(model: onnx.ModelProto, module: nn.Module, path: Path, data: Path) -> bool:
    """Turn the graph's parameter inputs into initialisers whose values lie in ``data``; return whether there are any.

    Parameters that no operator reads are dropped (the UNet's own cross-attention K/V). Raises ``GraphError`` for a
    parameter that the graph does not read where it should, and ``OSError``.
    """
    known = dict(_tensors(module))
    wanted = _without_parameters(model, known, path)
    large = False
    with data.open("wb") as file:
        for name in wanted:
            large |= _attach(model.graph, name, known[name], file)
    if not large:
        data.unlink()
    return large


def borrow_weights(model: onnx.ModelProto, module: nn.Module, path: Path, lender: Path) -> bool:
    """Do the same with the values of another graph of the same module, without writing them once more.

    Raises ``GraphError`` also for a parameter that the lender does not have.
    """
    import onnx

    lent = {each.name: each for each in onnx.load(str(lender), load_external_data=False).graph.initializer}
    large = False
    for name in _without_parameters(model, dict(_tensors(module)), path):
        if name not in lent:
            raise GraphError(f"{lender.name} lacks a tensor that the graph reads", path=path, found=name)
        model.graph.initializer.add().CopyFrom(lent[name])
        large |= lent[name].data_location == onnx.TensorProto.EXTERNAL
    return large


def _without_parameters(model: onnx.ModelProto, known: Mapping[str, torch.Tensor], path: Path) -> list[str]:
    """Take the parameters out of the graph's inputs; return those that it reads."""
    graph = model.graph
    read = {name for node in graph.node for name in node.input}
    kept = [value for value in graph.input if value.name not in known]
    wanted = [value.name for value in graph.input if value.name in known and value.name in read]
    if unknown := [value.name for value in kept if "." in value.name]:
        raise GraphError(
            "the graph reads a tensor that the module does not have", path=path, found=unknown[0]
        )
    del graph.input[:]
    graph.input.extend(kept)
    return wanted


def _tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _attach(graph: onnx.GraphProto, name: str, tensor: torch.Tensor, file: BinaryIO) -> bool:
    import onnx

    tensor = tensor.detach().contiguous()
    content: memoryview = tensor.reshape(-1).view(torch.uint8).numpy().data
    entry = graph.initializer.add()
    entry.name = name
    entry.data_type = onnx_type(tensor.dtype)
    entry.dims.extend(tensor.shape)
    if len(content) < SMALL:
        entry.raw_data = bytes(content)
        return False
    file.write(bytes(-file.tell() % ALIGNMENT))
    entry.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (
        ("location", Path(file.name).name),
        ("offset", str(file.tell())),
        ("length", str(len(content))),
    ):
        entry.external_data.add(key=key, value=value)
    file.write(content)
    return True


def onnx_type(dtype: torch.dtype) -> int:
    """Return ONNX's number of a type."""
    import onnx

    numbers: dict[torch.dtype, int] = {
        torch.float32: onnx.TensorProto.FLOAT,
        torch.float16: onnx.TensorProto.FLOAT16,
        torch.bfloat16: onnx.TensorProto.BFLOAT16,
        torch.int64: onnx.TensorProto.INT64,
    }
    return numbers[dtype]
