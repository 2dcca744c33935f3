"""ONNX Runtime: the independent witness of the export, and the way to other devices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from engine.backends.compiled.runtime import CompiledGraph, Pairs, Rows, Shape, Tensors
from engine.export.directory import ExportDirectory
from engine.export.errors import GraphCompileError
from engine.export.signature import check_signature


class ONNXRuntime:
    """Runs graphs on the CPU; a session takes every shape, so a graph is compiled once."""

    name = "onnxruntime"

    def __init__(self, threads: int | None = None) -> None:
        import onnxruntime

        self.device = torch.device("cpu")
        self._onnxruntime = onnxruntime
        self._options = onnxruntime.SessionOptions()
        self._options.log_severity_level = 3
        if threads is not None:
            self._options.intra_op_num_threads = threads
        self._sessions: dict[Path, _Session] = {}

    def pairs(self, rows: int) -> Pairs:
        """Return none: a session runs the graph as exported."""
        return ()

    def compile(
        self, export: ExportDirectory, graph: str, shapes: Mapping[str, Shape], *, paired: bool = False
    ) -> CompiledGraph:
        """Return the graph's session."""
        assert not paired, "there are no pairs"
        path, entry = export.graph(graph)
        if path not in self._sessions:
            try:
                session = self._onnxruntime.InferenceSession(
                    str(path), self._options, providers=["CPUExecutionProvider"]
                )
            except Exception as error:  # its errors have no base class of their own
                raise GraphCompileError(
                    "ONNX Runtime cannot load the graph", path=path, found=str(error)[:500]
                ) from error
            inputs = [value.name for value in session.get_inputs()]
            outputs = [value.name for value in session.get_outputs()]
            check_signature(path, entry, inputs, outputs)
            self._sessions[path] = _Session(session, outputs)
        return self._sessions[path]


class _Session:
    def __init__(self, session: Any, outputs: list[str]) -> None:
        self._session = session
        self._outputs = outputs

    def __call__(self, inputs: Tensors, rows: Rows | None = None) -> dict[str, torch.Tensor]:
        given = {name: tensor.contiguous().numpy() for name, tensor in inputs.items()}
        arrays = self._session.run(self._outputs, given)
        return {name: torch.from_numpy(array) for name, array in zip(self._outputs, arrays, strict=True)}
