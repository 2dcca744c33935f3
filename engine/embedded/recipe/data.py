"""Draw the training set once and keep it on disk: people, each in several scenes."""

import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from engine.embedded.recipe.drawing import draw_person
from engine.embedded.world import IDENTITY_VALUES, SCENE_VALUES, Identity, Scene, sample_identity

IDENTITY_NAMES = tuple(IDENTITY_VALUES)
SCENE_NAMES = tuple(SCENE_VALUES)
ATTRIBUTES: dict[str, tuple[str, ...]] = {**IDENTITY_VALUES, **SCENE_VALUES}
_HELD_OUT_ONE_IN = 20


def is_held_out(identity: Identity) -> bool:
    """Tell whether training must never see this combination of attributes (one in twenty)."""
    key = ",".join(str(v) for v in identity.labels().values())
    return zlib.crc32(key.encode()) % _HELD_OUT_ONE_IN == 0


def people(seed: int, *, held_out: bool) -> Iterator[Identity]:
    """Yield people without end, only those on one side of the held-out split."""
    random = Random(seed)
    while True:
        identity = sample_identity(random)
        if is_held_out(identity) == held_out:
            yield identity


def identity_of(labels: NDArray[np.uint8]) -> Identity:
    """Return the person that `labels_of` numbered."""
    return Identity(**{n: IDENTITY_VALUES[n][labels[i]] for i, n in enumerate(IDENTITY_NAMES)})


def scene_of(labels: NDArray[np.uint8]) -> Scene:
    """Return the scene that `labels_of` numbered, its person unmoved."""
    k = len(IDENTITY_NAMES)
    return Scene(**{n: SCENE_VALUES[n][labels[k + i]] for i, n in enumerate(SCENE_NAMES)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawings:
    """Hold drawn portraits; picture `i` shows person `i // scenes`.

    `images` is `[N, 128, 128, 3]` uint8, `labels` is `[N, len(ATTRIBUTES)]` uint8.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    scenes: int

    def __len__(self) -> int:
        return len(self.labels)

    def other_scene(self, index: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
        """Return for each picture another one of the same person."""
        person, scene = np.divmod(index, self.scenes)
        step = random.integers(1, self.scenes, size=index.shape)
        return person * self.scenes + (scene + step) % self.scenes


class Gallery:
    """Hand out drawings on the device that trains on them: from the disk for a CPU; a GPU holds them all."""

    def __init__(self, drawings: Drawings, device: torch.device) -> None:
        self._drawings, self._device = drawings, device
        self._held: Tensor | None = None
        if device.type != "cpu":
            self._held = torch.from_numpy(np.array(drawings.images)).to(device)

    def pictures(self, rows: NDArray[np.int64]) -> Tensor:
        """Return `[B, 128, 128, 3]` bytes."""
        if self._held is not None:
            return self._held[torch.from_numpy(rows).to(self._device)]
        return torch.from_numpy(np.array(self._drawings.images[rows]))

    def labels(self, rows: NDArray[np.int64]) -> Tensor:
        """Return `[B, len(ATTRIBUTES)]` numbers."""
        return torch.from_numpy(self._drawings.labels[rows].astype(np.int64)).to(self._device)

    def some(self, random: np.random.Generator, count: int) -> NDArray[np.int64]:
        """Return the sorted numbers of so many different drawings."""
        return np.sort(random.choice(len(self._drawings), count, replace=False)).astype(np.int64)


def draw(
    directory: Path, *, persons: int, scenes: int, seed: int, held_out: bool = False, size: int = 128
) -> Drawings:
    """Return the drawings kept in `directory`; all cores draw them first when they are not there."""
    images_path, labels_path = directory / "images.npy", directory / "labels.npy"
    if not labels_path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        count = persons * scenes
        images = np.lib.format.open_memmap(
            images_path, mode="w+", dtype=np.uint8, shape=(count, size, size, 3)
        )
        labels = np.zeros((count, len(ATTRIBUTES)), dtype=np.uint8)
        source = people(seed, held_out=held_out)
        work = ((next(source), f"{seed + 1}/{person}", scenes, size) for person in range(persons))
        # Not forked: a fork copies locks that this process's other threads hold. And no pool, which waits for ever
        # for a worker that died.
        executor = ProcessPoolExecutor(mp_context=get_context("spawn"))
        try:
            drawn = tqdm(
                executor.map(draw_person, work, chunksize=16),
                desc=f"draw {directory.name}",
                total=persons,
                mininterval=5,
            )
            for person, (pictures, numbers) in enumerate(drawn):
                rows = slice(person * scenes, (person + 1) * scenes)
                images[rows], labels[rows] = pictures, numbers
        finally:
            executor.shutdown(cancel_futures=True)  # what is left is not drawn first
        images.flush()
        np.save(labels_path, labels)
    return Drawings(images=np.load(images_path, mmap_mode="r"), labels=np.load(labels_path), scenes=scenes)
