"""What a backend is created with, beside the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.backends.base import BackendStartError
from engine.models.lora_choice import LoraChoice

AUTO = "auto"
"""The type of numbers that is left to the backend."""


class UnknownBackendError(BackendStartError, ValueError):
    """No backend of that name, a package that it needs is not installed, or a type that it does not compute in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendOptions:
    """See ``engine.config.EngineConfig`` for the meanings.

    ``cache`` is where exports, compiled graphs and engines are kept; None keeps nothing, and then backends that need an
    export or an engine cannot be created from a model directory.
    """

    adapter: str | None = None
    dtype: str = "float32"
    device: str = "cpu"
    threads: int | None = None
    lanes: int = 1
    buckets: tuple[int, ...] | None = None
    cache: Path | None = None
    loras: tuple[LoraChoice, ...] = ()

    def dtype_of(self, backend: str, possible: Sequence[str], *, best: str = "float32") -> str:
        """Return the type to compute in: the one asked for, or ``best`` where that is left to the backend (``auto``).

        Raises ``UnknownBackendError`` for a type that the backend does not compute in.
        """
        if self.dtype == AUTO:
            return best
        if self.dtype not in possible:
            raise UnknownBackendError(
                f"{backend} backend computes in {' or '.join(possible)}, not {self.dtype}"
            )
        return self.dtype
