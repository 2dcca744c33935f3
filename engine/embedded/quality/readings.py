"""Keep what the reader read from generated pictures, so that a later run goes on where one stopped."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.embedded.quality.settings import Setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """Hold attributes read, `[N, A]` indices, and the reader's features, `[N, F]`, of N pictures in order."""

    read: NDArray[np.uint8]
    features: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.read)

    def first(self, count: int) -> "Readings":
        """Return those of the first `count` pictures."""
        return Readings(read=self.read[:count], features=self.features[:count])

    def then(self, more: "Readings") -> "Readings":
        """Return these followed by others."""
        return Readings(
            read=np.concatenate([self.read, more.read]),
            features=np.concatenate([self.features, more.features]),
        )


class Store:
    """Hold the finished parts of a report on one set of weights, in a directory of their own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def readings(self, of: Setting | str) -> Readings | None:
        """Return what is kept of a way of generating, or of drawings by their name."""
        path = self._path(of)
        if not path.exists():
            return None
        with np.load(path) as kept:
            return Readings(read=kept["read"], features=kept["features"])

    def keep(self, of: Setting | str, readings: Readings) -> None:
        """Keep readings in place of those kept before."""
        path = self._path(of)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        np.savez_compressed(partial, read=readings.read, features=readings.features)
        partial.replace(path)

    def part(self, name: str) -> dict[str, Any] | None:
        """Return a finished part that is no reading, such as the VAE's."""
        path = self.directory / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else None

    def keep_part(self, name: str, figures: dict[str, Any]) -> None:
        """Keep a finished part."""
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n")

    def _path(self, of: Setting | str) -> Path:
        if isinstance(of, str):
            return self.directory / f"{of}.npz"
        text = json.dumps(asdict(of), sort_keys=True)
        return self.directory / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.npz"


def fingerprint(files: Iterable[Path]) -> str:
    """Return 16 hex digits that differ when the contents of any of the files do."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]
