"""What a backend is created with, beside the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class UnknownBackendError(ValueError):
    """No backend of that name, a package that it needs is not installed, or a type that it does not compute in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendOptions:
    """See ``engine.config.EngineConfig`` for the meanings.

    ``cache`` is where exports and compiled graphs are kept; None keeps nothing, and then compiled backends take
    exports alone.
    """

    adapter: str | None = None
    dtype: str = "float32"
    threads: int | None = None
    buckets: tuple[int, ...] | None = None
    cache: Path | None = None

    def check_dtype(self, backend: str, possible: Sequence[str]) -> None:
        """Raise ``UnknownBackendError`` for a type that the backend does not compute in."""
        if self.dtype not in possible:
            raise UnknownBackendError(
                f"{backend} backend computes in {' or '.join(possible)}, not {self.dtype}"
            )
