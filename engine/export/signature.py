"""Whether a graph that a runtime has loaded is the one that the manifest describes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.export.errors import GraphMismatchError
from engine.export.manifest import GraphEntry


def check_signature(path: Path, entry: GraphEntry, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Raise ``GraphMismatchError`` unless the names of inputs and outputs are the manifest's."""
    for what, specs, found in (("inputs", entry.inputs, inputs), ("outputs", entry.outputs, outputs)):
        expected = [spec.name for spec in specs]
        if sorted(expected) != sorted(found):
            raise GraphMismatchError(
                f"the graph has other {what} than the manifest says",
                path=path,
                expected=", ".join(expected),
                found=", ".join(found),
            )
