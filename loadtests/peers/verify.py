"""No side is measured whose picture is not diffusers' own."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.embedded import model_directory
from loadtests.peers.ask import Ask
from loadtests.peers.errors import PeerPictureError, tail

Picture = NDArray[np.int16]

MEAN_LEVELS = 2.0
"""bfloat16 on this model is 0.4 to 1 away from float32 in the mean (docs/benchmarks.md); another picture, tens."""
MEAN_LEVELS_INT8 = 4.0
"""Limner's int8 is 1.5 away on average over pictures (docs/benchmarks.md), of some pictures twice that."""
MEAN_LEVELS_INT8_PEER = 10.0
"""That of torch and of NNCF is further away (docs/peers.md), and still a picture of the same."""


def decode(png: bytes) -> Picture:
    """Return a PNG as ``[H, W, 3]``."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=np.int16)


def draw_oracle(ask: Ask, people: Path, folder: Path) -> Picture:
    """Return what diffusers makes of an ask, drawn by a process of its own that is gone afterwards.

    Raises ``PeerPictureError`` with the end of its log.
    """
    out = folder / "oracle.png"
    log = folder / "oracle.log"
    with log.open("wb") as sink:
        status = subprocess.run(
            [sys.executable, "-m", "loadtests.peers.oracle", "--model", str(model_directory()),
             "--references", str(people), "--ask", ask.to_json(), "--out", str(out)],
            stdout=sink, stderr=subprocess.STDOUT, check=False,
        ).returncode  # fmt: skip
    if status:
        raise PeerPictureError("diffusers", f"drew no picture to compare with: status {status}", tail(log))
    return decode(out.read_bytes())


def mean_difference(side: str, png: bytes, oracle: Picture) -> float:
    """Return how many of 255 levels a picture is off in the mean.

    Raises ``PeerPictureError`` above `most_levels` and for what cannot be decoded.
    """
    try:
        picture = decode(png)
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's, of a damaged PNG
        raise PeerPictureError(side, f"its picture cannot be decoded: {error}") from error
    if picture.shape != oracle.shape:
        raise PeerPictureError(side, f"its picture is {picture.shape}, not {oracle.shape}")
    difference, most = float(np.abs(picture - oracle).mean()), most_levels(side)
    if difference > most:
        raise PeerPictureError(side, f"its picture is {difference:.1f} levels off, more than {most:g}")
    return difference


def most_levels(side: str) -> float:
    """Return how many levels the picture of a side, ``NAME`` or ``NAME:DTYPE``, may be off in the mean."""
    if not side.endswith(":int8"):
        return MEAN_LEVELS
    return MEAN_LEVELS_INT8 if side.startswith("limner") else MEAN_LEVELS_INT8_PEER
