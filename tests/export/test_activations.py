"""The file of activations' ranges: written whole, read again, and what is said of one that is none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from engine.export.activations import (
    ACTIVATIONS,
    ENTRY,
    FORMAT,
    Range,
    read_activations,
    weights_of,
    write_activations,
)
from engine.export.errors import CorruptActivationsError, NotCalibratedError
from engine.export.manifest import FileDigest

OWN = "a digest"
OURS = json.dumps({"format": FORMAT, "weights": OWN})
LAYER = "unet.mid_block.resnets.0.conv1"


def known(*limits: float) -> Range:
    high = np.array(limits, dtype=np.float32)
    return Range(-high, high)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / ACTIVATIONS
    write_activations(
        path, {LAYER: known(1, 2), "unet.conv": known(3)}, OWN, {"images": 8, "errors": {"unet": 0.1}}
    )
    first = path.read_bytes()
    found = read_activations(path, OWN)
    assert found.keys() == {LAYER, "unet.conv"}
    assert found[LAYER].low.tolist() == [-1, -2] and found[LAYER].high.tolist() == [1, 2]
    write_activations(path, dict(reversed(found.items())), OWN, {"images": 8, "errors": {"unet": 0.1}})
    assert path.read_bytes() == first, "the same ranges are the same file"
    assert [entry.name for entry in tmp_path.iterdir()] == [ACTIVATIONS]


def test_ranges_of_other_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / ACTIVATIONS
    write_activations(path, {LAYER: known(1)}, OWN, {})
    with pytest.raises(NotCalibratedError, match=r"of other weights.*found weights a digest"):
        read_activations(path, "another")


def test_weights_are_those_of_unet_vae_and_loras() -> None:
    def of(**changed: str) -> str:
        files = {
            "unet/model.safetensors": "1",
            "vae/model.safetensors": "2",
            "lora/style.safetensors": "3",
            "unet/config.json": "4",
            "text_encoder/model.safetensors": "5",
        }
        given = files | {name.replace("__", "/") + ".safetensors": digest for name, digest in changed.items()}
        return weights_of(FileDigest(file=name, bytes=1, sha256=digest) for name, digest in given.items())

    assert of() == of(text_encoder__model="changed")
    assert len({of(), of(unet__model="x"), of(vae__model="x"), of(lora__style="x"), of(lora__more="x")}) == 5


def test_ranges_join() -> None:
    one = Range(np.array([-1.0, 0.0], np.float32), np.array([1.0, 5.0], np.float32))
    both = one.joined(known(0.5, 2))
    assert both.low.tolist() == [-1, -2] and both.high.tolist() == [1, 5]


@pytest.mark.parametrize(
    ("tensors", "kind", "what"),
    [
        ({f"{LAYER}.low": [0.0]}, OURS, f"{LAYER}.low and {LAYER}.high"),
        ({f"{LAYER}.low": [0.0], f"{LAYER}.high": [1.0, 2.0]}, OURS, "finite limits"),
        ({f"{LAYER}.low": [0.0], f"{LAYER}.high": [float("nan")]}, OURS, "finite limits"),
        ({f"{LAYER}.low": [2.0], f"{LAYER}.high": [1.0]}, OURS, "finite limits"),
        ({f"{LAYER}.low": [0.0], f"{LAYER}.high": [1.0]}, '{"format": 2}', "format 1; found format 2"),
        ({}, "[]", "format 1; found format None"),
        ({}, "{", "limner-engine calibrate"),
    ],
    ids=["one limit", "two lengths", "no number", "empty", "another format", "no object", "no JSON"],
)
def test_what_is_no_range(tmp_path: Path, tensors: dict[str, list[float]], kind: str, what: str) -> None:
    path = tmp_path / ACTIVATIONS
    arrays = {name: np.array(values, dtype=np.float32) for name, values in tensors.items()}
    save_file(arrays, path, metadata={ENTRY: kind})
    with pytest.raises(CorruptActivationsError, match=what) as caught:
        read_activations(path, OWN)
    assert caught.value.path == path


@pytest.mark.parametrize("content", [None, b"", b"not a safetensors file at all"])
def test_what_is_no_file(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / ACTIVATIONS
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CorruptActivationsError, match="limner-engine calibrate"):
        read_activations(path, OWN)
