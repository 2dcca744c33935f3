"""Backends by name; each is imported only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.backends.base import Backend, BackendStartError

AUTO = "auto"
"""The type of numbers that is left to the backend."""


class UnknownBackendError(BackendStartError, ValueError):
    """No backend of that name, a package that it needs is not there, or a type that it does not compute in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendRequest:
    """What is asked of a backend.

    root: model directory, or for a compiled backend an export. adapter: file in its ``ip_adapter/`` without suffix.
    dtype: as torch names it, or ``auto``. threads, buckets: None for the backend's own. cache: folder of exports and
    compiled graphs; None for the default one.
    """

    root: Path
    adapter: str | None = None
    dtype: str = "float32"
    threads: int | None = None
    buckets: tuple[int, ...] | None = None
    cache: Path | None = None

    def dtype_of(self, backend: str, possible: Sequence[str], *, best: str = "float32") -> str:
        """Return the type to compute in: the one asked for, or ``best`` where that is left to the backend.

        Raises ``UnknownBackendError`` for a type that the backend does not compute in.
        """
        if self.dtype == AUTO:
            return best
        if self.dtype not in possible:
            raise UnknownBackendError(
                f"{backend} backend computes in {' or '.join(possible)}, not {self.dtype}"
            )
        return self.dtype


Creator = Callable[[BackendRequest], Backend]


def _torch(request: BackendRequest) -> Backend:
    import torch

    from engine.backends.torch_backend import TorchBackend
    from engine.models.model import load_model

    dtype: torch.dtype = getattr(torch, request.dtype_of("torch", ("float32", "bfloat16")))
    return TorchBackend(load_model(request.root, adapter=request.adapter, dtype=dtype))


def _openvino(request: BackendRequest) -> Backend:
    from engine.backends.compiled.create import create_openvino

    return create_openvino(request)


def _onnxruntime(request: BackendRequest) -> Backend:
    from engine.backends.compiled.create import create_onnxruntime

    return create_onnxruntime(request)


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
    """Load the model in ``root`` on a backend; see ``BackendRequest``.

    Raises ``UnknownBackendError`` and the ``ModelError`` family.
    """
    if name not in CREATORS:
        raise UnknownBackendError(f"no backend {name!r}; there are {', '.join(sorted(CREATORS))}")
    return CREATORS[name](
        BackendRequest(root=root, adapter=adapter, dtype=dtype, threads=threads, buckets=buckets, cache=cache)
    )
