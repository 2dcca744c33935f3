"""Draw portraits with a model in float32, and note the ranges of its UNet's and its decoder's activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from PIL import Image

from engine.backends.base import ModelFacts
from engine.backends.compiled.backend import CompiledBackend, CompiledSettings
from engine.backends.compiled.openvino_runtime import REDUCED, OpenVINOSettings, require_int8
from engine.calibration.watching import WatchingRuntime
from engine.config import EngineConfig
from engine.embedded.quality.generate import Generator, Order, Picture
from engine.embedded.quality.settings import Setting
from engine.export.activations import ACTIVATIONS, Range, weights_of, write_activations
from engine.export.errors import CalibrationError
from engine.export.obtain import obtain_export
from engine.export.settings import ExportSettings
from engine.loop.announcement import distilled, model_info
from engine.models.lora_choice import LoraChoice

BUCKET = 8
OTHERS = (("dpmpp_2m_karras", 5.0), ("euler_ancestral", 7.5))
"""Samplers and guidance beside the model's own: between them they meet all of the noise that requests do."""
WITHOUT_REFERENCE = 8
"""One picture in so many has no reference."""
LARGEST_ERROR = 0.25
"""Of a graph in int8, over the root mean square of what it gives: beyond it something is wrong, not only rounded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What is drawn for calibration: so many ``images`` of prompts and references, each taken in turns.

    References are RGB, ``[H, W, 3]`` uint8; there may be none, and must be none for a model without an adapter.
    """

    prompts: Sequence[str]
    references: Sequence[Picture]
    images: int

    def orders(self, settings: Sequence[Setting]) -> list[Order]:
        """Return what to draw in these ways, taken in turns too; always the same."""
        references: list[Picture | None] = list(self.references) or [None]
        pairs = islice(
            zip(cycle(self.prompts), cycle(references), cycle(settings), strict=False), self.images
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


def settings_of(facts: ModelFacts) -> tuple[Setting, ...]:
    """Return the ways to draw with a model: its own, and others where it was not distilled to few steps."""
    info = model_info(facts)
    own = Setting(
        sampler=info.default_sampler,
        steps=info.default_steps,
        guidance_scale=info.default_guidance_scale,
    )
    others = () if distilled(facts) else OTHERS
    return (own, *(replace(own, sampler=sampler, guidance_scale=scale) for sampler, scale in others))


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
    weights: str
    """See ``weights_of``."""

    def write(self, path: Path) -> None:
        """Write ``activations.safetensors``. Raises ``OSError``."""
        errors = {graph: round(error, 4) for graph, error in self.errors.items()}
        write_activations(path, self.ranges, self.weights, {"images": self.images, "errors": errors})
        path.chmod(0o644)


def calibrate(
    model: Path,
    cache: Path,
    material: Material,
    *,
    adapter: str | None = None,
    loras: Sequence[LoraChoice] = (),
    threads: int | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> Calibration:
    """Calibrate a model directory; ``progress`` hears of pictures as they are done.

    Raises the ``ModelError`` family, ``CalibrationError`` among it, ``UnknownBackendError`` for a CPU that cannot tell
    how far off int8 is, and ``ValueError`` for references that the model has no adapter for.
    """
    require_int8()
    export = obtain_export(model, cache, ExportSettings(adapter=adapter, loras=tuple(loras)))
    facts = export.manifest.facts
    if material.references and not facts.adapters:
        raise ValueError(f"{model} has no adapter for references")
    runtime = WatchingRuntime(OpenVINOSettings(threads=threads, cache=cache / "openvino"))
    backend = CompiledBackend(export, runtime, CompiledSettings(buckets=(BUCKET,)))
    generator = Generator(
        backend,
        EngineConfig(backend="openvino", buckets=(BUCKET,), deterministic_bucket=BUCKET),
        clock=lambda: 0.0,  # so that ticks are always the same
    )
    runtime.forget()  # warm-up draws noise
    try:
        for more in generator.generate(material.orders(settings_of(facts))):
            progress(more)
    except RuntimeError as failure:
        raise CalibrationError("a portrait could not be drawn", path=model, found=str(failure)) from failure
    errors = runtime.errors()
    if errors.keys() != set(REDUCED):
        raise CalibrationError(
            "not all graphs were seen", path=model, expected=str(REDUCED), found=str([*errors])
        )
    for graph, error in errors.items():
        if not error <= LARGEST_ERROR:
            raise CalibrationError(
                f"in int8 {graph} is too far off, over the root mean square of what it gives",
                path=model / ACTIVATIONS,
                expected=f"at most {LARGEST_ERROR:g}",
                found=f"{error:.3g}",
            )
    return Calibration(
        ranges=dict(runtime.ranges),
        errors=errors,
        images=material.images,
        weights=weights_of(export.manifest.source),
    )
