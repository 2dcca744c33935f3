"""What can go wrong with TensorRT engines, as typed errors that name what was expected and what was found."""

from __future__ import annotations

from pathlib import Path

from engine.backends.base import BackendStartError
from engine.models.errors import describe


class TensorRTError(BackendStartError):
    """An engine cannot be built, loaded or run. ``path`` is the file at fault, where it is one."""

    def __init__(
        self,
        what: str,
        *,
        path: Path | None = None,
        tensor: str | None = None,
        expected: str | None = None,
        found: str | None = None,
    ) -> None:
        self.path = path
        self.tensor = tensor
        self.expected = expected
        self.found = found
        super().__init__(describe(what, path=path, tensor=tensor, expected=expected, found=found))


class DriverMissingError(TensorRTError):
    """There is no NVIDIA driver or no GPU, so no engine can be loaded here."""


class PackageMissingError(TensorRTError):
    """The Python package of the backend is not installed, or cannot be imported."""


class GraphRefusedError(TensorRTError):
    """TensorRT's parser does not take the ONNX file, or its inputs are not those of the UNet's graph."""


class BuildFailedError(TensorRTError):
    """The builder gave no engine, or cannot build what was asked for."""


class EngineRefusedError(TensorRTError):
    """An engine file is truncated, damaged, of another GPU, version or bucket, or TensorRT does not load it."""


class EngineStoreError(TensorRTError):
    """The engine was built but could not be written; nothing half-written is left behind."""


class EngineCallError(TensorRTError):
    """TensorRT refused a call on a loaded engine."""
