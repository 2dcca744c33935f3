"""Draw portraits with a model in float32, and note the ranges of its UNet's and its decoder's activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from PIL import Image

from engine.backends.compiled.backend import CompiledBackend, CompiledSettings
from engine.backends.compiled.openvino_runtime import OpenVINOSettings
from engine.calibration.watching import WatchingRuntime
from engine.config import EngineConfig
from engine.embedded.quality.generate import Generator, Order, Picture
from engine.embedded.quality.settings import Setting
from engine.export.activations import ACTIVATIONS, Range, write_activations
from engine.export.errors import CalibrationError
from engine.export.obtain import obtain_export
from engine.export.settings import ExportSettings

BUCKET = 8
SETTINGS = tuple(
    Setting(sampler=sampler, guidance_scale=guidance)
    for sampler, guidance in (("ddim", 3.0), ("dpmpp_2m_karras", 5.0), ("euler_ancestral", 7.5))
)
"""Ways of drawing that are taken in turns: between them they meet all of the noise that requests do."""
WITHOUT_REFERENCE = 8
"""One picture in so many has no reference."""
LARGEST_ERROR = 0.25
"""Of a graph in int8, over the root mean square of what it gives: beyond it something is wrong, not only rounded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What is drawn for calibration: so many ``images`` of prompts and references, each taken in turns.

    References are RGB, ``[H, W, 3]`` uint8; there may be none.
    """

    prompts: Sequence[str]
    references: Sequence[Picture]
    images: int

    def orders(self) -> list[Order]:
        """Return what to draw, always the same."""
        references: list[Picture | None] = list(self.references) or [None]
        pairs = islice(
            zip(cycle(self.prompts), cycle(references), cycle(SETTINGS), strict=False), self.images
        )
        return [
            Order(
                prompt=prompt,
                reference=None if number % WITHOUT_REFERENCE == WITHOUT_REFERENCE - 1 else reference,
                seed=number,
                setting=setting,
            )
            for number, (prompt, reference, setting) in enumerate(pairs)
        ]


def read_material(prompts: Path, references: Path | None, images: int) -> Material:
    """Read a file of prompts, one a line, and the pictures of a folder. Raises ``ValueError`` and ``OSError``."""
    lines = [line.strip() for line in prompts.read_text(encoding="utf-8").splitlines()]
    found = [line for line in lines if line]
    if not found:
        raise ValueError(f"{prompts} has no prompt, one a line")
    pictures = (
        [] if references is None else [_read(path) for path in sorted(references.iterdir()) if path.is_file()]
    )
    if references is not None and not pictures:
        raise ValueError(f"{references} has no pictures")
    return Material(prompts=found, references=pictures, images=images)


def _read(path: Path) -> Picture:
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Ranges, and by graph how far off it is in int8 with them: the rms error over its result's own rms."""

    ranges: dict[str, Range]
    errors: dict[str, float]
    images: int

    def write(self, path: Path) -> None:
        """Write ``activations.safetensors``. Raises ``OSError``."""
        errors = {graph: round(error, 4) for graph, error in self.errors.items()}
        write_activations(path, self.ranges, {"images": self.images, "errors": errors})
        path.chmod(0o644)


def calibrate(
    model: Path,
    cache: Path,
    material: Material,
    *,
    adapter: str | None = None,
    threads: int | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> Calibration:
    """Calibrate a model directory; ``progress`` hears of pictures as they are done.

    Raises the ``ModelError`` family, ``CalibrationError`` among it.
    """
    export = obtain_export(model, cache, ExportSettings(adapter=adapter))
    runtime = WatchingRuntime(OpenVINOSettings(threads=threads, cache=cache / "openvino"))
    backend = CompiledBackend(export, runtime, CompiledSettings(buckets=(BUCKET,)))
    generator = Generator(
        backend,
        EngineConfig(backend="openvino", buckets=(BUCKET,), deterministic_bucket=BUCKET),
        clock=lambda: 0.0,  # so that ticks are always the same
    )
    runtime.forget()  # warm-up draws noise
    for more in generator.generate(material.orders()):
        progress(more)
    errors = runtime.errors()
    for graph, error in errors.items():
        if not error <= LARGEST_ERROR:
            raise CalibrationError(
                f"in int8 {graph} is too far off, over the root mean square of what it gives",
                path=model / ACTIVATIONS,
                expected=f"at most {LARGEST_ERROR:g}",
                found=f"{error:.3g}",
            )
    return Calibration(ranges=dict(runtime.ranges), errors=errors, images=material.images)
