"""What a backend is created with, beside the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

AUTO = "auto"
"""The type of numbers that is left to the backend."""


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
