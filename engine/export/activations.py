"""``activations.safetensors`` of a model: between which values the inputs of UNet's and decoder's layers lie.

What int8 needs to know beside the weights, which say it of themselves. ``limner-engine calibrate`` makes the file; it
lies beside ``model_index.json``, and an export carries a copy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.export.errors import CorruptActivationsError, NotCalibratedError
from engine.export.manifest import FileDigest
from engine.files.replacement import replacing

ACTIVATIONS = "activations.safetensors"
FORMAT = 1
ENTRY = "limner"
"""Of the file's metadata."""
_LOW, _HIGH = ".low", ".high"

Channels = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Range:
    """The least and the greatest value of each channel of a layer's input, ``[C]`` each."""

    low: Channels
    high: Channels

    def joined(self, other: Range) -> Range:
        """Return the range of both."""
        return Range(np.minimum(self.low, other.low), np.maximum(self.high, other.high))


Ranges = Mapping[str, Range]
"""By the layer's name, which is that of its weight without ``.weight``: ``unet.mid_block.resnets.0.conv1``."""


def weights_of(source: Iterable[FileDigest]) -> str:
    """Return a digest of the weights that ranges are of: of a model directory's files, UNet, VAE and LoRAs."""
    files = [
        (file.file, file.sha256)
        for file in source
        if file.file.startswith(("unet/", "vae/", "lora/")) and file.file.endswith(".safetensors")
    ]
    return hashlib.sha256(json.dumps(sorted(files)).encode()).hexdigest()


def check_calibrated(root: Path) -> None:
    """Raise ``NotCalibratedError`` for a model directory without ranges."""
    if not (root / ACTIVATIONS).is_file():
        raise NotCalibratedError(
            "int8 needs to know between which values activations lie: run limner-engine calibrate on the model",
            path=root,
            expected=ACTIVATIONS,
        )


def write_activations(path: Path, ranges: Ranges, weights: str, about: Mapping[str, object]) -> None:
    """Write ranges of these weights, with what else is to be known, whole or not at all. Raises ``OSError``.

    All of the latter is one JSON object in one entry: of several, safetensors writes now one first and now another.
    """
    from safetensors.numpy import save

    tensors: dict[str, Channels] = {}
    for name, found in sorted(ranges.items()):
        tensors[name + _LOW], tensors[name + _HIGH] = found.low, found.high
    stated = json.dumps({"format": FORMAT, "weights": weights, **about}, sort_keys=True)
    content = save(tensors, metadata={ENTRY: stated})
    with replacing(path) as beside:
        beside.write_bytes(content)


def read_activations(path: Path, weights: str) -> dict[str, Range]:
    """Read the ranges of these weights. Raises ``CorruptActivationsError``, ``NotCalibratedError`` for others."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            stated = json.loads((file.metadata() or {}).get(ENTRY, "null"))
            kind = stated.get("format") if isinstance(stated, dict) else None
            if kind != FORMAT:
                raise _corrupt(path, f"format {FORMAT}", f"format {kind}")
            if stated.get("weights") != weights:
                raise NotCalibratedError(
                    "the ranges of activations are of other weights: run limner-engine calibrate on this model",
                    path=path,
                    expected=f"weights {weights[:16]}",
                    found=f"weights {str(stated.get('weights'))[:16]}",
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise _corrupt(path, "a safetensors file", str(error)) from error
    layers = {name.removesuffix(_LOW).removesuffix(_HIGH) for name in tensors}
    return {layer: _range(path, layer, tensors) for layer in sorted(layers)}


def _range(path: Path, layer: str, tensors: Mapping[str, NDArray[Any]]) -> Range:
    low, high = (tensors.get(layer + end) for end in (_LOW, _HIGH))
    if low is None or high is None:
        raise _corrupt(path, f"{layer}{_LOW} and {layer}{_HIGH}", "one of them, or neither")
    sound = low.ndim == 1 and low.shape == high.shape and np.isfinite(low).all() and np.isfinite(high).all()
    if not sound or (low > high).any():
        raise _corrupt(path, f"finite limits of each channel of {layer}", f"{low.shape} and {high.shape}")
    return Range(low.astype(np.float32), high.astype(np.float32))


def _corrupt(path: Path, expected: str, found: str) -> CorruptActivationsError:
    return CorruptActivationsError(
        "not ranges of activations; make them again with limner-engine calibrate",
        path=path,
        expected=expected,
        found=found,
    )
