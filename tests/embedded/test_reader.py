import json
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.embedded.quality.reader import (
    FEATURES,
    Reader,
    ReaderMismatchError,
    load_reader,
    prepare,
    save_reader,
    world_attributes,
)
from engine.embedded.recipe.data import Drawings
from engine.embedded.recipe.reader import augment, train_reader

SMALL = {"hat": ("none", "cap"), "light": ("soft", "warm", "cool")}


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, 128, 128, 3), dtype=np.uint8)


def test_reads_one_value_of_every_attribute() -> None:
    reader = Reader()
    read = reader.read(pictures(3))
    assert (read.shape, read.dtype) == ((3, len(world_attributes())), np.uint8)
    assert (read < [len(values) for values in world_attributes().values()]).all()
    assert reader.features(pictures(3)).shape == (3, FEATURES)
    assert sum(p.numel() for p in reader.parameters()) < 1_500_000


def test_a_reading_does_not_depend_on_the_other_pictures() -> None:
    torch.manual_seed(0)
    reader, images = Reader(), pictures(3)
    np.testing.assert_allclose(reader.features(images)[1:2], reader.features(images[1:2]), atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 64, 64, 3), (128, 128, 3), (1, 128, 128, 4)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="the reader takes"):
        prepare(np.zeros(shape, dtype=np.uint8))


def test_saved_and_loaded_it_reads_the_same(tmp_path: Path) -> None:
    reader, path = Reader(SMALL), tmp_path / "reader.safetensors"
    reader.train()
    reader(prepare(pictures(4)))  # normalisation statistics that are not the initial ones
    save_reader(reader, path)
    assert json.loads(path.with_suffix(".json").read_text())["attributes"]["hat"] == ["none", "cap"]
    again = load_reader(path, SMALL)
    np.testing.assert_allclose(again.features(pictures(4)), reader.features(pictures(4)), atol=2e-2)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({**SMALL, "hat": ("none", "crown")}, "hat"),
        ({**SMALL, "gaze": ("ahead",)}, "gaze"),
        (dict(reversed(SMALL.items())), "their order"),
    ],
)
def test_a_reader_of_another_world_is_refused(
    tmp_path: Path, other: dict[str, tuple[str, ...]], named: str
) -> None:
    save_reader(Reader(SMALL), tmp_path / "reader.safetensors")
    with pytest.raises(ReaderMismatchError, match=named):
        load_reader(tmp_path / "reader.safetensors", other)


def test_augmenting_keeps_shape_and_mean_colour() -> None:
    torch.manual_seed(0)
    pixels = prepare(np.full((16, 128, 128, 3), 140, dtype=np.uint8))
    out = augment(pixels)
    assert out.shape == pixels.shape
    assert out.isfinite().all()
    # Tones of skin are about 0.8 apart in these units.
    assert (out.mean(dim=(2, 3)) - pixels.mean(dim=(2, 3))).abs().max() < 0.25


def test_training_learns_a_colour_and_continues(tmp_path: Path) -> None:
    labels = np.arange(96, dtype=np.uint8)[:, None] % 2
    images = np.where(labels[:, :, None, None] == 0, 60, 200) * np.ones((1, 128, 128, 3))
    drawings = Drawings(images=images.astype(np.uint8), labels=labels, scenes=2)
    attributes, export = {"skin": ("dark", "light")}, tmp_path / "reader.safetensors"
    train_reader(None, drawings, drawings, tmp_path, minutes=0.06, attributes=attributes, export=export)
    reader = load_reader(export, attributes)
    assert reader.features(drawings.images[:2]).shape == (2, FEATURES)
    step = torch.load(tmp_path / "reader.pt", weights_only=True)["step"]
    train_reader(None, drawings, drawings, tmp_path, minutes=0.09, attributes=attributes, export=export)
    assert torch.load(tmp_path / "reader.pt", weights_only=True)["step"] > step
