"""Warm-up: run every bucket once, time it, and derive from the times what the loop plans with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite

import structlog
import torch

from engine.backends.base import Backend, LatentShape, RowConditioning
from engine.scheduling import CostCurve, without_noise

from .announcement import model_info
from .decoding import DecodePlan, plan_decoding
from .errors import BackendBrokenError
from .guard import all_finite
from .preview import LatentPreview, fit_preview

log = structlog.get_logger()

ROUNDS = 2
BUDGET_SECONDS = 60.0
"""Once warm-up has taken this long, larger buckets are not run: the cost curve extrapolates."""

PREVIEW_SIDE = 256
"""Pixels of the pictures from which the preview map is fitted, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What was measured. ``tick_seconds`` and ``decode_seconds`` are by bucket and by batch, at the default size."""

    shape: LatentShape
    tick_seconds: dict[int, float]
    decode_seconds: dict[int, float]
    decode_plan: DecodePlan
    preview: LatentPreview

    @property
    def costs(self) -> CostCurve:
        """The cost curve that the scheduler plans with."""
        return CostCurve({self.shape: without_noise(self.tick_seconds)})

    @property
    def decode_seconds_each(self) -> float:
        """Seconds of decoding for each image at the planned batch."""
        return self.decode_seconds[self.decode_plan.batch] / self.decode_plan.batch


def calibrate(
    backend: Backend,
    buckets: Sequence[int],
    clock: Callable[[], float],
    *,
    decode_batch: int,
    patience_ticks: int,
    reference_batch: int,
) -> Calibration:
    """Run every part of the backend at the model's default size. Raises ``BackendBrokenError``, and what it raises."""
    facts = backend.facts
    scale = facts.latent_scale
    shape = (facts.latent_channels, facts.default_height // scale, facts.default_width // scale)
    side = max(facts.min_size, min(PREVIEW_SIDE, facts.default_height, facts.default_width)) // scale
    small = (facts.latent_channels, side, side)
    until = clock() + BUDGET_SECONDS
    for adapter in facts.adapters:
        _encode_pictures(backend, adapter.name, reference_batch)
    ticks = _time_ticks(backend, buckets, shape, clock, until)
    batches = [2**power for power in range(decode_batch.bit_length())]
    decodes = _time_decodes(backend, batches, shape, clock, until)
    return Calibration(
        shape=shape,
        tick_seconds=ticks,
        decode_seconds=decodes,
        decode_plan=plan_decoding(decodes, stall=max(ticks.values()), patience_ticks=patience_ticks),
        preview=fit_preview(backend, small),
    )


def warm(
    backend: Backend,
    buckets: Sequence[int],
    decodes: Sequence[int],
    shape: LatentShape,
    *,
    reference_batch: int,
) -> None:
    """Run every part of the backend once without timing it. Raises ``BackendBrokenError``, and what it raises."""
    for adapter in backend.facts.adapters:
        _encode_pictures(backend, adapter.name, reference_batch)
    with _ticking(backend, max(buckets), shape) as tick:
        for bucket in sorted(buckets):
            tick(bucket)
    for images in decodes:
        _decode(backend, images, shape)


def _encode_pictures(backend: Backend, adapter: str, batch: int) -> None:
    """Run the image encoder once for an adapter, at the one size that it will run at."""
    size = backend.facts.reference_size
    tokens = backend.encode_images(torch.full((batch, size, size, 3), 128, dtype=torch.uint8), adapter)
    if not all_finite(tokens).all():
        raise BackendBrokenError(f"the image encoder's output for {adapter} is not finite at warm-up")


def _time_ticks(
    backend: Backend, buckets: Sequence[int], shape: LatentShape, clock: Callable[[], float], until: float
) -> dict[int, float]:
    with _ticking(backend, max(buckets), shape) as tick:
        measured = _time(tick, buckets, clock, until)
    # More rows never take less time; where it was measured so, the smaller bucket met a disturbance.
    for larger, smaller in pairwise(sorted(measured, reverse=True)):
        measured[smaller] = min(measured[smaller], measured[larger])
    return measured


@contextmanager
def _ticking(backend: Backend, largest: int, shape: LatentShape) -> Iterator[Callable[[int], None]]:
    """Hold slots for a tick of so many rows; give a function that runs one, waits for it and looks at its output.

    Its rows are two and two of an image, if requests are guided unless they say otherwise.
    """
    facts = backend.facts
    guided = model_info(facts).default_guidance_scale > 1 and not facts.guidance_embedded
    (prompt,) = backend.encode_prompts([""])
    slots = [backend.place(RowConditioning(prompt=prompt)) for _ in range(largest)]

    def tick(rows: int) -> None:
        sample = torch.zeros(rows, *shape, device=backend.device)
        timestep = torch.full((rows,), 500.0, device=backend.device)
        images = [*range(rows // 2)] * 2 if guided and rows % 2 == 0 else None
        noise = backend.predict_noise(slots[:rows], sample, timestep, rows, images)
        if not isfinite(float(noise.sum())):
            raise BackendBrokenError(f"bucket {rows}: the prediction is not finite at warm-up")

    try:
        yield tick
    finally:
        for slot in slots:
            backend.release(slot)


def _decode(backend: Backend, images: int, shape: LatentShape) -> None:
    backend.decode_latents(torch.zeros(images, *shape, device=backend.device)).cpu()


def _time_decodes(
    backend: Backend, batches: Sequence[int], shape: LatentShape, clock: Callable[[], float], until: float
) -> dict[int, float]:
    return _time(lambda images: _decode(backend, images, shape), batches, clock, until)


def _time(
    run: Callable[[int], None], sizes: Sequence[int], clock: Callable[[], float], until: float
) -> dict[int, float]:
    """Return the seconds of the fastest run for each size, after a first one that compiles and fills caches.

    Whatever else the machine does can only add to a time, so the fastest is the truest; and sizes take turns, so
    that one slow spell does not fall on one size alone. The cost curve follows the level later.
    """
    seconds: dict[int, float] = {}
    for size in sorted(sizes):
        if seconds and clock() > until:
            log.warning("warm-up is slow, larger batches were not run", first=size)
            break
        began = clock()
        run(size)
        seconds[size] = clock() - began
    for _ in range(ROUNDS):
        for size in list(seconds):
            if clock() > until:
                return seconds
            began = clock()
            run(size)
            seconds[size] = max(min(seconds[size], clock() - began), 1e-6)
    return seconds
