"""The Python package behind a backend's name: ``tensorrt`` and ``tensorrt_rtx`` have one API."""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from engine.backends.tensorrt.errors import PackageMissingError

log = structlog.get_logger()

MODULES = {
    "tensorrt": ("tensorrt",),
    # The vendor's front end, or the bindings that it imports: the wheels on public indexes are those.
    "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
OLDEST = {"tensorrt": (10, 1), "tensorrt-rtx": (1, 0)}
"""10.1 brought device memory that the caller owns, by which all buckets share one block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRTPackage:
    """An imported package. ``module`` is untyped: the bindings carry no types."""

    backend: str
    module: Any
    version: str

    @property
    def ahead_of_time(self) -> bool:
        """Whether it builds engines for GPUs that are not there."""
        return hasattr(self.module, "ComputeCapability")

    def logger(self) -> Any:
        """Return a logger for its objects; ``logger.errors`` are the latest error messages, oldest first."""
        return _logger(self.module)


def load_package(backend: str, *, load: Callable[[str], Any] = importlib.import_module) -> TensorRTPackage:
    """Import the package of ``tensorrt`` or ``tensorrt-rtx``. Raises ``PackageMissingError``."""
    failures = []
    for name in MODULES[backend]:
        try:
            module = load(name)
        except (ImportError, OSError) as error:
            failures.append(f"{name}: {error}")
            continue
        version = str(module.__version__)
        if tuple(int(part) for part in version.split(".")[:2]) < OLDEST[backend]:
            expected = ".".join(map(str, OLDEST[backend])) + " or newer"
            raise PackageMissingError(f"package {name} is too old", expected=expected, found=version)
        return TensorRTPackage(backend=backend, module=module, version=version)
    raise PackageMissingError(
        f"backend {backend} needs its package: pip install 'limner[{backend}]'",
        expected=" or ".join(MODULES[backend]),
        found="; ".join(failures),
    )


def _logger(trt: Any) -> Any:
    severity = trt.ILogger.Severity
    levels = {
        severity.INTERNAL_ERROR: "error",
        severity.ERROR: "error",
        severity.WARNING: "warning",
        severity.INFO: "debug",
        severity.VERBOSE: None,
    }

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=4)

        def log(self, at: Any, message: str) -> None:
            level = levels.get(at)
            if level == "error":
                self.errors.append(message)
            if level is not None:
                getattr(log, level)("tensorrt", message=message)

    return Logger()
