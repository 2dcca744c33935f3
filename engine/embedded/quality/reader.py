"""Read a portrait's attributes: a small network that shares nothing with the model that it judges."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from engine.embedded.world import IDENTITY_VALUES, SCENE_VALUES

Attributes = Mapping[str, tuple[str, ...]]

PICTURE = 128
FEATURES = 160
_STEM, _MIDDLE, _CORNER = 40, 80, 32
_BATCH = 50
_MEAN, _DEVIATION = 0.55, 0.27


class ReaderMismatchError(ValueError):
    """Say that reader weights were trained for another world than this one."""


def world_attributes() -> dict[str, tuple[str, ...]]:
    """Return every attribute of the world with its values, the person's first."""
    return {**IDENTITY_VALUES, **SCENE_VALUES}


class Residual(nn.Module):
    """Add one normalised 3x3 convolution to its input, in place of two: half the cost, the same depth."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width)
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return `[B, width, h, w]`."""
        out: Tensor = x + self.conv(torch.relu(self.norm(x)))
        return out


class Reader(nn.Module):
    """Name each attribute of a 128x128 portrait; about 55 million multiply-adds a picture.

    Light, gaze and framing are a matter of place, so the heads see a 4x4 map beside the pooled features.
    """

    def __init__(self, attributes: Attributes | None = None) -> None:
        super().__init__()
        self.attributes = dict(attributes or world_attributes())
        self.stem = nn.Conv2d(3, _STEM, 4, stride=4)
        self.trunk = nn.Sequential(
            Residual(_STEM),
            nn.BatchNorm2d(_STEM),
            nn.ReLU(),
            nn.Conv2d(_STEM, _MIDDLE, 3, stride=2, padding=1, bias=False),
            Residual(_MIDDLE),
            nn.BatchNorm2d(_MIDDLE),
            nn.ReLU(),
            nn.Conv2d(_MIDDLE, FEATURES, 3, stride=2, padding=1, bias=False),
            Residual(FEATURES),
            nn.BatchNorm2d(FEATURES),
            nn.ReLU(),
        )
        self.place = nn.Conv2d(FEATURES, _CORNER, 1)
        width = FEATURES + 16 * _CORNER
        self.heads = nn.ModuleList(nn.Linear(width, len(values)) for values in self.attributes.values())

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Return the logits `[B, values]` of each attribute for pictures `[B, 3, 128, 128]` from `prepare`."""
        states = self.trunk(self.stem(pixels))
        place = torch.relu(nn.functional.avg_pool2d(self.place(states), 2)).flatten(1)
        seen = torch.cat([states.mean(dim=(2, 3)), place], dim=1)
        return [head(seen) for head in self.heads]

    @torch.no_grad()
    def read(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return what pictures `[N, 128, 128, 3]` show, as indices `[N, len(attributes)]`."""
        self.eval()
        rows = [torch.stack([logits.argmax(-1) for logits in self(part)], dim=1) for part in _batches(images)]
        return torch.cat(rows).numpy().astype(np.uint8)

    @torch.no_grad()
    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the pooled features `[N, 160]` in which the Frechet distance is taken."""
        self.eval()
        rows = [self.trunk(self.stem(part)).mean(dim=(2, 3)) for part in _batches(images)]
        return torch.cat(rows).numpy().astype(np.float64)


def prepare(images: NDArray[np.uint8] | Tensor) -> Tensor:
    """Return `[B, 128, 128, 3]` bytes as the reader's `[B, 3, 128, 128]` input.

    Raises ValueError for pictures of another shape.
    """
    if images.ndim != 4 or images.shape[1:] != (PICTURE, PICTURE, 3):
        raise ValueError(f"the reader takes [N, {PICTURE}, {PICTURE}, 3], not {list(images.shape)}")
    stored = images if isinstance(images, Tensor) else torch.from_numpy(np.array(images))
    pixels = stored.permute(0, 3, 1, 2).float().contiguous()
    return pixels.div_(255).sub_(_MEAN).div_(_DEVIATION)


def _batches(images: NDArray[np.uint8]) -> Iterator[Tensor]:
    for start in range(0, len(images), _BATCH):
        yield prepare(images[start : start + _BATCH])


def reader_path() -> Path:
    """Return where the shipped reader's weights are; its attributes lie beside them."""
    return Path(__file__).resolve().parent / "reader.safetensors"


def save_reader(reader: Reader, path: Path) -> None:
    """Write the weights in float16, and beside them the attributes that they name (JSON)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = reader.state_dict()
    weights = {
        # Variances of a normalisation span more than float16 holds.
        name: value.float() if "running" in name else value.half()
        for name, value in state.items()
        if value.is_floating_point() and not name.endswith("num_batches_tracked")
    }
    save_file({name: value.contiguous() for name, value in weights.items()}, path)
    path.with_suffix(".json").write_text(json.dumps({"attributes": reader.attributes}, indent=2) + "\n")


def load_reader(path: Path, attributes: Attributes | None = None) -> Reader:
    """Return the reader kept at `path`, ready to read.

    Raises FileNotFoundError when it was never trained, and ReaderMismatchError when its attributes are not
    `attributes` (the world's when None).
    """
    wanted = dict(attributes or world_attributes())
    stored: dict[str, list[str]] = json.loads(path.with_suffix(".json").read_text())["attributes"]
    kept = {name: tuple(values) for name, values in stored.items()}
    if list(kept.items()) != list(wanted.items()):
        differing = [name for name in {**wanted, **kept} if kept.get(name) != wanted.get(name)]
        raise ReaderMismatchError(
            f"{path} reads other attributes than the world draws: {', '.join(differing) or 'their order'}; "
            "train the reader again (python -m engine.embedded.recipe reader)"
        )
    reader = Reader(wanted)
    weights = {name: value.float() for name, value in load_file(path).items()}
    counters = {name: value for name, value in reader.state_dict().items() if name.endswith("_tracked")}
    reader.load_state_dict({**counters, **weights})
    reader.eval().requires_grad_(False)
    return reader
