"""Backends by name; each is imported only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from engine.backends.base import Backend
from engine.models.lora_choice import LoraChoice

Creator = Callable[[Path, str | None, str, Sequence[LoraChoice]], Backend]


class UnknownBackendError(ValueError):
    """No backend of that name, or a type of numbers that it does not compute in."""


def _torch(root: Path, adapter: str | None, dtype: str, loras: Sequence[LoraChoice]) -> Backend:
    import torch

    from engine.backends.torch_backend import TorchBackend
    from engine.models.model import load_model

    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype not in dtypes:
        raise UnknownBackendError(f"torch backend computes in {' or '.join(dtypes)}, not {dtype}")
    return TorchBackend(load_model(root, adapter=adapter, dtype=dtypes[dtype], loras=loras))


CREATORS: dict[str, Creator] = {"torch": _torch}


def create_backend(
    name: str,
    root: Path,
    *,
    adapter: str | None = None,
    dtype: str = "float32",
    loras: Sequence[LoraChoice] = (),
) -> Backend:
    """Load the model in ``root`` on a backend, with LoRAs fused and ``adapter`` as its default.

    Raises ``UnknownBackendError`` and the ``ModelError`` family.
    """
    if name not in CREATORS:
        raise UnknownBackendError(f"no backend {name!r}; there are {', '.join(sorted(CREATORS))}")
    return CREATORS[name](root, adapter, dtype, loras)
