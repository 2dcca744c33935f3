"""Measure each part of the report and keep what was found."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from engine.embedded.quality.generate import Generator, Order, load_generator
from engine.embedded.quality.pairs import Pairs
from engine.embedded.quality.plot import Panel, plot
from engine.embedded.quality.reader import Reader
from engine.embedded.quality.readings import Readings, Store
from engine.embedded.quality.reconstruction import batches, by_style, load_vae, reconstruct
from engine.embedded.quality.report import Figures
from engine.embedded.quality.settings import AXES, MAIN, MAIN_SETTINGS, Setting, along
from engine.embedded.quality.sheets import draw_sheets, eyes_sheet

_CHUNK = 100
_TITLES = {"ip_adapter_scale": "IP-Adapter scale", "guidance_scale": "Guidance", "steps": "Steps"}


class Measurement:
    """Hold the model's engine, the reader and the pairs, and fill a store; the engine loads on first use."""

    def __init__(self, *, weights: Path, reader: Reader, pairs: Pairs, store: Store) -> None:
        self._weights, self._reader, self._pairs, self._store = weights, reader, pairs, store

    @cached_property
    def _generator(self) -> Generator:
        return load_generator(self._weights)

    def main(self) -> None:
        """Generate all pairs in every main setting, and read the drawings that they are compared with."""
        self._read_drawings("drawings-targets", self._pairs.target)
        self._read_drawings("drawings-spare", self._pairs.spare)
        for name, setting in MAIN_SETTINGS.items():
            self._fill(name, setting, len(self._pairs))

    def grid(self, count: int) -> None:
        """Generate the first `count` pairs at every point of the grid; those of the main part are not repeated."""
        for axis, values in AXES.items():
            for value, setting in zip(values, along(axis), strict=True):
                self._fill(f"{axis} {value:g}", setting, count)

    def vae(self, images: Path) -> None:
        """Measure reconstruction of the target drawings, and draw the sheet of eyes."""
        from engine.embedded.recipe.vae import psnr

        vae, pairs = load_vae(self._weights), self._pairs
        noise, parts = [], []
        with tqdm(total=len(pairs), desc="vae") as bar:
            for rows in batches(len(pairs)):
                originals = np.array(pairs.drawings.images[pairs.target[rows]])
                noise.append(psnr(vae, originals))
                parts.append(self._read(reconstruct(vae, originals)))
                bar.update(len(originals))
        found = parts[0]
        for part in parts[1:]:
            found = found.then(part)
        self._store.keep("drawings-reconstructed", found)
        self._read_drawings("drawings-spare", pairs.spare)
        eyes_sheet(vae, pairs.drawings, images / "eyes.png")
        decibels = by_style(np.concatenate(noise), pairs.labels)
        self._store.keep_part("vae", {"pictures": len(pairs), "psnr_db": decibels})

    def sheets(self, images: Path) -> None:
        """Draw the contact sheets."""
        self._store.keep_part("sheets", {"files": draw_sheets(self.draw, self._pairs, images)})

    def draw(self, name: str, orders: Sequence[Order]) -> NDArray[np.uint8]:
        """Return the pictures of orders, `[N, H, W, 3]`, under a progress bar."""
        with tqdm(total=len(orders), desc=name) as bar:
            for done in self._generator.generate(orders):
                bar.update(done)
        return self._generator.take()

    def _fill(self, name: str, setting: Setting, count: int) -> None:
        """Read pictures of the pairs that the store has none of yet, a chunk at a time."""
        kept = self._store.readings(setting)
        while (start := 0 if kept is None else len(kept)) < count:
            numbers = range(start, min(start + _CHUNK, count))
            orders = [
                Order(
                    prompt=self._pairs.prompt(n, setting),
                    reference=self._pairs.reference(n, setting),
                    seed=n,
                    setting=setting,
                )
                for n in numbers
            ]
            more = self._read(self.draw(f"{name}, {start} to {numbers[-1]}", orders))
            kept = more if kept is None else kept.then(more)
            self._store.keep(setting, kept)

    def _read_drawings(self, name: str, rows: NDArray[np.int64]) -> None:
        kept = self._store.readings(name)
        if kept is None or len(kept) < len(rows):
            self._store.keep(name, self._read(np.array(self._pairs.drawings.images[rows])))

    def _read(self, pictures: NDArray[np.uint8]) -> Readings:
        return Readings(read=self._reader.read(pictures), features=self._reader.features(pictures))


def draw_curves(report: Figures, path: Path) -> None:
    """Write the plot of the grid."""
    panels = []
    chance = report.get("main", {}).get("chance", {}).get("identity")
    for axis, points in report["grid"].items():
        curves: dict[str, list[tuple[float, float]]] = {
            title: [(point["value"], point[key]) for point in points]
            for key, title in (("identity", "who"), ("prompt", "scene"))
        }
        if chance is not None:
            curves["who, by chance"] = [(point["value"], chance) for point in points]
        panels.append(Panel(title=_TITLES[axis], curves=curves, chosen=chosen(axis)))
    path.parent.mkdir(parents=True, exist_ok=True)
    plot(panels).save(path, optimize=True)


def chosen(axis: str) -> float:
    """Return the main setting's value on an axis."""
    values: Mapping[str, float] = {
        "ip_adapter_scale": MAIN.ip_adapter_scale,
        "guidance_scale": MAIN.guidance_scale,
        "steps": MAIN.steps,
    }
    return values[axis]
