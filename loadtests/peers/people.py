"""The people of the comparison: portraits in a folder, where every peer finds them as if they had been uploaded."""

from __future__ import annotations

from pathlib import Path

from loadtests.runner.gallery import Gallery

PEOPLE = 8
"""Scenarios of the comparison show persons 0 to 7."""


def write_people(gallery: Gallery, folder: Path) -> None:
    """Write ``0.png`` to ``7.png``, the portraits that Limner is shown, byte for byte."""
    folder.mkdir(parents=True, exist_ok=True)
    for person in range(PEOPLE):
        (folder / f"{person}.png").write_bytes(gallery.picture(person).data)
