"""Backends by name; each is imported only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from engine.backends.base import Backend
from engine.backends.options import BackendOptions, UnknownBackendError

__all__ = ["CREATORS", "UnknownBackendError", "create_backend"]

Creator = Callable[[Path, BackendOptions], Backend]


def _torch(root: Path, options: BackendOptions) -> Backend:
    import torch

    from engine.backends.torch_backend import TorchBackend
    from engine.models.model import load_model

    dtype: torch.dtype = getattr(torch, options.dtype_of("torch", ("float32", "bfloat16")))
    return TorchBackend(load_model(root, adapter=options.adapter, dtype=dtype))


def _openvino(root: Path, options: BackendOptions) -> Backend:
    from engine.backends.compiled.create import create_openvino

    return create_openvino(root, options)


def _onnxruntime(root: Path, options: BackendOptions) -> Backend:
    from engine.backends.compiled.create import create_onnxruntime

    return create_onnxruntime(root, options)


CREATORS: dict[str, Creator] = {"torch": _torch, "openvino": _openvino, "onnxruntime": _onnxruntime}


def create_backend(
    name: str,
    root: Path,
    *,
    adapter: str | None = None,
    dtype: str = "float32",
    threads: int | None = None,
    buckets: tuple[int, ...] | None = None,
    cache: Path | None = None,
) -> Backend:
    """Load a model directory, or for a compiled backend an export, on a backend; see ``BackendOptions``.

    Raises ``UnknownBackendError`` and the ``ModelError`` family.
    """
    if name not in CREATORS:
        raise UnknownBackendError(f"no backend {name!r}; there are {', '.join(sorted(CREATORS))}")
    options = BackendOptions(adapter=adapter, dtype=dtype, threads=threads, buckets=buckets, cache=cache)
    return CREATORS[name](root, options)
