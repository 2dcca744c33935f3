"""Which LoRA to fuse into a model, and how strongly."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraChoice:
    """A LoRA's safetensors file, and the factor on its change of the weights."""

    path: Path
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a scale that is not finite."""
        if not math.isfinite(self.scale):
            raise ValueError(f"the scale of a LoRA must be a finite number, not {self.scale}")

    @classmethod
    def parse(cls, text: str) -> LoraChoice:
        """Read ``PATH`` or ``PATH:SCALE``; what follows the last colon is a scale only if it is a number.

        Raises ``ValueError`` for a scale that is not finite.
        """
        path, _, last = text.rpartition(":")
        try:
            scale = float(last)
        except ValueError:
            path = ""
        return cls(path=Path(path), scale=scale) if path else cls(path=Path(text))


def add_lora_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--lora``, whose choices arrive in order in ``loras``."""
    parser.add_argument(
        "--lora",
        dest="loras",
        metavar="PATH[:SCALE]",
        type=LoraChoice.parse,
        action="append",
        default=[],
        help="LoRA to fuse into the weights; may be given several times",
    )
