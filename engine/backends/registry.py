"""Backends by name; each is imported only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from engine.backends.base import Backend

Creator = Callable[[Path, str | None, str], Backend]


class UnknownBackendError(ValueError):
    """No backend of that name, or a type of numbers that it does not compute in."""


def _torch(root: Path, adapter: str | None, dtype: str) -> Backend:
    import torch

    from engine.backends.torch_backend import TorchBackend
    from engine.models.model import load_model

    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype not in dtypes:
        raise UnknownBackendError(f"torch backend computes in {' or '.join(dtypes)}, not {dtype}")
    return TorchBackend(load_model(root, adapter=adapter, dtype=dtypes[dtype]))


CREATORS: dict[str, Creator] = {"torch": _torch}


def create_backend(name: str, root: Path, *, adapter: str | None = None, dtype: str = "float32") -> Backend:
    """Load the model in ``root`` on a backend.

    Raises ``UnknownBackendError`` and the ``ModelError`` family.
    """
    if name not in CREATORS:
        raise UnknownBackendError(f"no backend {name!r}; there are {', '.join(sorted(CREATORS))}")
    return CREATORS[name](root, adapter, dtype)
