"""Tensors of the Open Inference Protocol, read into Python's values and written from numpy's.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_grpc.md#tensor-data
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from heapq import nsmallest
from types import MappingProxyType
from typing import Any

import numpy as np
from limner.kserve.open_inference_grpc_pb2 import ModelInferRequest, ModelInferResponse
from numpy.typing import NDArray

from server.api.checks import Findings

MAX_DIMENSIONS = 8
"""Of a shape; more are not multiplied out, which could take seconds."""

MAX_ELEMENTS = 16
"""No input has more; a request can claim any number of them."""

BYTES = "BYTES"
LENGTH_BYTES = 4
"""Before each element of BYTES, little-endian."""

_KINDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "BOOL": ("?", "bool_contents"),
        "INT8": ("<i1", "int_contents"),
        "INT16": ("<i2", "int_contents"),
        "INT32": ("<i4", "int_contents"),
        "INT64": ("<i8", "int64_contents"),
        "UINT8": ("<u1", "uint_contents"),
        "UINT16": ("<u2", "uint_contents"),
        "UINT32": ("<u4", "uint_contents"),
        "UINT64": ("<u8", "uint64_contents"),
        "FP16": ("<f2", ""),
        "FP32": ("<f4", "fp32_contents"),
        "FP64": ("<f8", "fp64_contents"),
        BYTES: ("", "bytes_contents"),
    }
)
"""How numpy reads each datatype's raw form, and where its other form is; FP16 has the raw one alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputTensor:
    """An input's values in order: bytes, bools, ints or floats, as ``datatype`` says."""

    datatype: str
    values: tuple[Any, ...]


def read_inputs(findings: Findings, request: ModelInferRequest) -> dict[str, InputTensor]:
    """Return the inputs that can be read, by name; of the others, findings say what is wrong."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        findings.add(
            "raw_input_contents",
            f"has {len(raw)} tensors for {len(request.inputs)} inputs",
            "the limit is one for each input, or none",
        )
        return {}
    tensors: dict[str, InputTensor] = {}
    for index, told in enumerate(request.inputs):
        field = input_field(told.name)
        if told.name in tensors:
            findings.add(field, "is there more than once", "the limit is once")
            continue
        values = _values(findings, field, told, raw[index] if raw else None)
        if values is not None:
            tensors[told.name] = InputTensor(datatype=told.datatype, values=values)
    return tensors


def input_field(name: str) -> str:
    """Return how findings call an input."""
    return f"inputs[{name[:64]}]"


def _values(findings: Findings, field: str, told: Any, raw: bytes | None) -> tuple[Any, ...] | None:
    kind = _KINDS.get(told.datatype)
    if kind is None:
        findings.add(
            field, f"has the datatype {told.datatype[:16]!r}", f"the limit is one of {', '.join(_KINDS)}"
        )
        return None
    if told.parameters:
        names = ", ".join(nsmallest(4, told.parameters))
        findings.add(
            field, f"has parameters ({names[:128]})", "the limit is none; shared memory is not served"
        )
        return None
    if len(told.shape) > MAX_DIMENSIONS:
        findings.add(field, f"has {len(told.shape)} dimensions", f"the limit is {MAX_DIMENSIONS}")
        return None
    count = math.prod(told.shape) if all(size >= 0 for size in told.shape) else -1
    if not 1 <= count <= MAX_ELEMENTS:
        shape = list(told.shape)
        findings.add(field, f"has the shape {shape}", f"the limit is 1 to {MAX_ELEMENTS} elements")
        return None
    if raw is None:
        return _typed(findings, field, told, kind[1], count)
    if told.HasField("contents"):
        findings.add(field, "has contents beside raw_input_contents", "the limit is one of the two")
        return None
    values = _split(raw) if told.datatype == BYTES else _numbers(raw, kind[0])
    if values is None or len(values) != count:
        problem = f"has {len(raw)} raw bytes, which are not {count} elements of {told.datatype}"
        findings.add(field, problem, "the limit is what its shape and datatype ask for")
        return None
    return values


def _typed(findings: Findings, field: str, told: Any, name: str, count: int) -> tuple[Any, ...] | None:
    values = getattr(told.contents, name) if name else ()
    if len(values) != count:
        where = f"contents.{name}" if name else "raw_input_contents, which this datatype must come in"
        findings.add(
            field, f"has {len(values)} elements in {where}", f"the limit is {count}, as its shape says"
        )
        return None
    return tuple(values)


def _numbers(raw: bytes, code: str) -> tuple[Any, ...] | None:
    kind = np.dtype(code)
    if len(raw) % kind.itemsize or len(raw) > MAX_ELEMENTS * kind.itemsize:
        return None
    return tuple(np.frombuffer(raw, kind).tolist())


def _split(raw: bytes) -> tuple[bytes, ...] | None:
    elements: list[bytes] = []
    at = 0
    while at < len(raw) and len(elements) <= MAX_ELEMENTS:
        start = at + LENGTH_BYTES
        at = start + int.from_bytes(raw[at:start], "little")
        if start > len(raw) or at > len(raw):
            return None
        elements.append(raw[start:at])
    return tuple(elements)


def write_bytes(response: ModelInferResponse, name: str, elements: list[bytes]) -> None:
    """Add an output of BYTES ``[len(elements)]``."""
    raw = b"".join(len(each).to_bytes(LENGTH_BYTES, "little") + each for each in elements)
    _write(response, name, BYTES, (len(elements),), raw)


def write_array(response: ModelInferResponse, name: str, array: NDArray[Any]) -> None:
    """Add an output with the array's shape and datatype."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    datatype = {"u1": "UINT8", "i8": "INT64"}[little.dtype.str[1:]]
    _write(response, name, datatype, little.shape, little.tobytes())


def _write(
    response: ModelInferResponse, name: str, datatype: str, shape: tuple[int, ...], raw: bytes
) -> None:
    response.outputs.add(name=name, datatype=datatype, shape=shape)
    response.raw_output_contents.append(raw)
