"""From an RGB picture to the square that the image encoder takes; Pillow and numpy only, for the server process."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
REVISION = "clip-pil-1"
"""Changes when the code below changes its output."""
LONGEST = 4
"""Pictures whose long edge is more than this many times the short one are cropped before they are resampled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferencePreprocessing:
    """Resize the shorter edge to ``shortest_edge`` pixels, then crop the centre to ``size`` by ``size``.

    ``version`` says all of it in one line (it is ``ModelFacts.preprocessing`` and part of the cache key), and
    ``parse`` reads that line back, so the server needs nothing else to preprocess for a model.
    """

    size: int
    shortest_edge: int
    resample: str = "bicubic"

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ReferencePreprocessing:
        """Read a ``feature_extractor/preprocessor_config.json``. Raises ``ValueError`` if it asks for anything else."""
        for name in ("do_resize", "do_center_crop", "do_rescale", "do_normalize"):
            if not config.get(name, True):
                raise ValueError(f"{name} is off")
        if abs(float(config.get("rescale_factor", 1 / 255)) - 1 / 255) > 1e-12:
            raise ValueError("rescale_factor is not 1/255")
        size = config.get("size", {"shortest_edge": 224})
        edge = size if isinstance(size, int) else size.get("shortest_edge")
        crop = config.get("crop_size", {"height": 224, "width": 224})
        height, width = (crop, crop) if isinstance(crop, int) else (crop.get("height"), crop.get("width"))
        if edge is None or height is None or height != width:
            raise ValueError("size must be a shortest_edge and crop_size a square")
        names = {int(value): name for name, value in RESAMPLING.items()}
        return cls(
            size=int(height),
            shortest_edge=int(edge),
            resample=names[int(config.get("resample", RESAMPLING["bicubic"]))],
        )

    @property
    def version(self) -> str:
        """All parameters and the code's revision in one line."""
        return f"{REVISION} edge={self.shortest_edge} crop={self.size} resample={self.resample}"

    @classmethod
    def parse(cls, version: str) -> ReferencePreprocessing:
        """Read a ``version`` line back. Raises ``ValueError`` for another revision's."""
        match = re.fullmatch(rf"{REVISION} edge=(\d+) crop=(\d+) resample=(\w+)", version)
        if match is None or match[3] not in RESAMPLING:
            raise ValueError(f"not a preprocessing of this release: {version!r}")
        return cls(size=int(match[2]), shortest_edge=int(match[1]), resample=match[3])

    def apply(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return the square as ``[size, size, 3]`` uint8 RGB.

        Equals transformers' ``CLIPImageProcessorPil`` before rescaling (image_transforms.py: resize, center_crop),
        its zero padding of a crop larger than the picture included.
        """
        if image.mode != "RGB":
            image = image.convert("RGB")
        width, height = image.size
        edge = self.shortest_edge
        if width <= height:
            new_width, new_height = edge, int(edge * height / width)
        else:
            new_width, new_height = int(edge * width / height), edge
        left, top = (new_width - self.size) // 2, (new_height - self.size) // 2
        if max(new_width, new_height) > LONGEST * edge and edge >= self.size:
            # A strip of 1 by 10,000 pixels would become one of 224 by 2,240,000: resample what the crop keeps alone.
            scale = (width / new_width, height / new_height)
            box = (
                left * scale[0],
                top * scale[1],
                (left + self.size) * scale[0],
                (top + self.size) * scale[1],
            )
            square = image.resize((self.size, self.size), resample=RESAMPLING[self.resample], box=box)
        else:
            resized = image.resize((new_width, new_height), resample=RESAMPLING[self.resample])
            square = resized.crop((left, top, left + self.size, top + self.size))
        return np.asarray(square, dtype=np.uint8)
