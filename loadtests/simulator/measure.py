"""Measuring this machine: ``python -m loadtests.simulator.measure machine.json``.

Runs the engine's loop by itself and then a server with its engine, both on the model in the box; writes a `Machine`.
Everything else on the machine is in the figures, so let it be idle.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import msgspec
import numpy as np
import torch
from limner_client import Client

from engine.__main__ import SPIN_COUNT
from engine.backends.base import Backend, PlacedReference, RowConditioning
from engine.config import DEFAULT_BACKENDS, EngineConfig
from loadtests.bench.limit import BareLoop
from loadtests.bench.service import saturated, unloaded
from loadtests.bench.settings import BenchSettings
from loadtests.runner.gallery import Gallery
from loadtests.simulator.errors import SimulationError
from loadtests.simulator.fleet import Fleet
from loadtests.simulator.machine import Machine, TickCosts
from loadtests.simulator.request import Request
from loadtests.simulator.settings import FleetSettings
from loadtests.simulator.summary import unloaded_seconds
from loadtests.simulator.traffic import ClosedLoop
from server.imaging.formats import PictureFormat
from server.references.cache import CacheEntry, CacheKey, entry_bytes
from server.references.record import ReferenceRecord
from tools.local_server import local_server

ROUNDS = 5
SIZES = ((96, 128),)
"""Width and height of what the scenario `mixed` asks for beside the model's own size."""


def median_seconds(call: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Return the median time of a call, after one that is not counted."""
    call()
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return median(seconds)


def measure_engine(settings: BenchSettings, config: EngineConfig) -> Machine:
    """Return what the engine's stages cost, its loop alone in this process."""
    bare = BareLoop(settings, config)
    calibration, backend = bare.calibration, bare.backend
    adapter = backend.facts.adapters[0].name
    side = backend.facts.reference_size
    pictures = torch.full((config.reference_batch, side, side, 3), 128, dtype=torch.uint8)
    texts = [settings.prompt(number) for number in range(8)]
    one = median_seconds(lambda: backend.encode_prompts(texts[:1]))
    eight = median_seconds(lambda: backend.encode_prompts(texts))
    each = max(0.0, (eight - one) / 7)
    facts = backend.facts
    sizes = [(facts.default_width, facts.default_height)]
    # A backend may have compiled its own size alone, and another is then not dearer by its area only.
    sizes += [size for size in SIZES if size not in sizes and min(size) >= facts.min_size]
    scale = facts.latent_scale
    with torch.inference_mode():
        # Warm-up times two calls of each; one that met a disturbance would be missing from every tick below.
        decodes = {
            images: min(seconds, _decode_seconds(backend, images, calibration.shape))
            for images, seconds in calibration.decode_seconds.items()
        }
        image = ImageCosts(
            decode=decodes[calibration.decode_plan.batch] / calibration.decode_plan.batch,
            prompt_call=max(0.0, one - each),
            prompt=each,
            place=_place_seconds(backend, settings),
        )
        ticks = [
            TickCosts(
                shape=(calibration.shape[0], height // scale, width // scale),
                seconds={
                    bucket: _tick_in_the_loop(bare, settings, bucket, (width, height), image)
                    for bucket in calibration.tick_seconds
                },
            )
            for width, height in sizes
        ]
    return Machine(
        name=f"{backend.facts.family} on {os.cpu_count()} cores, {config.backend} in {config.dtype}",
        sources={"everything": "python -m loadtests.simulator.measure"},
        ticks=tuple(ticks),
        decode_seconds=decodes,
        prompt_seconds=image.prompt_call,
        prompt_seconds_each=image.prompt,
        place_seconds=image.place,
        encode_seconds=median_seconds(lambda: backend.encode_images(pictures, adapter)),
        encode_batch=config.reference_batch,
        reference_bytes=_entry_bytes(backend.facts.adapters[0].tokens, backend.facts.token_width),
        prompt_bytes=backend.encode_prompts(texts[:1])[0].embedding.nbytes,
        latent_scale=backend.facts.latent_scale,
    )


def measure_service(machine: Machine, settings: BenchSettings, config: EngineConfig) -> Machine:
    """Return the machine with what a server adds: around a request, around a miss, and by sharing the cores."""
    options = [
        f"--engine-backend={config.backend}",
        f"--engine-dtype={config.dtype}",
        "--log-level",
        "warning",
    ]
    with local_server(*options, "--engine-threads", str(config.threads)) as server:
        unloaded(server, settings, seed=0)
        alone = median(unloaded(server, settings, seed=100))
        upload = _upload_seconds(server.target)
        taken, _ = saturated(server, settings, seed=200)
    machine = msgspec.structs.replace(
        machine,
        answer_seconds=max(0.0, alone - unloaded_seconds(machine, steps=settings.steps)),
        upload_seconds=max(0.0, upload - machine.encode_seconds),
    )
    simulated = _simulated_rate(machine, settings)
    lost = taken / settings.images_a_round - 1 / simulated
    if lost >= 0:
        return msgspec.structs.replace(machine, contention_seconds=lost)
    # The loop alone met a disturbance, or the machine has become faster since.
    return msgspec.structs.replace(machine, slowdown=1 + lost * simulated)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageCosts:
    """Seconds of what the loop does for an image beside its ticks: see `Machine`. A guided one places two rows."""

    decode: float
    prompt_call: float
    prompt: float
    place: float

    def of_one(self, area: float, together: int) -> float:
        """Return them for one of so many that begin together, of pictures of so many times the default area."""
        return area * self.decode + self.prompt_call / together + self.prompt + 2 * self.place


def _place_seconds(backend: Backend, settings: BenchSettings) -> float:
    """Return the mean time of a row of a guided image: one of a new prompt and a reference, and the unconditional one.

    The latter is alike for most images, so it takes what a slot holds.
    """
    facts = backend.facts
    side, adapter = facts.reference_size, facts.adapters[0].name
    tokens = backend.encode_images(torch.full((1, side, side, 3), 128, dtype=torch.uint8), adapter)[0]
    reference = PlacedReference(adapter=adapter, tokens=tokens, scales=(1.0,) * facts.layers)
    empty, *prompts = backend.encode_prompts(["", *map(settings.prompt, range(ROUNDS + 1))])
    unconditional = RowConditioning(prompt=empty)
    held = backend.place(unconditional)
    rows = (RowConditioning(prompt=prompt, references=(reference,)) for prompt in prompts)

    def place() -> None:
        for slot in [backend.place(next(rows)), backend.place(unconditional)]:
            backend.release(slot)

    seconds = median_seconds(place)
    backend.release(held)
    return seconds / 2


def _tick_in_the_loop(
    bare: BareLoop, settings: BenchSettings, bucket: int, size: tuple[int, int], image: ImageCosts
) -> float:
    """Return the seconds that a turn of the loop takes for each tick of a bucket that is full, all else apart."""
    if bucket % 2:
        # Guided images fill even buckets; warm-up tells what an odd one costs of the next.
        even = min((other for other in bare.tick_seconds if other > bucket and not other % 2), default=None)
        if even is None:
            return bare.tick_seconds[bucket]
        return (
            _tick_in_the_loop(bare, settings, even, size, image)
            * bare.tick_seconds[bucket]
            / bare.tick_seconds[even]
        )
    in_flight = bucket // 2
    images = max(8, 4 * in_flight)
    images -= images % in_flight
    bare.run(in_flight, in_flight, size=size)
    seconds = min(bare.run(images, in_flight, size=size) for _ in range(3))
    facts = bare.backend.facts
    # The simulator decodes other sizes by their area as well.
    area = size[0] * size[1] / (facts.default_width * facts.default_height)
    tick = (seconds - images * image.of_one(area, in_flight)) / (images / in_flight * settings.steps)
    if tick <= 0:
        raise SimulationError(
            "ticks",
            f"bucket {bucket}: prompts, keys and decodes took longer than all; something else ran as well",
        )
    return tick


def _decode_seconds(backend: Backend, images: int, shape: tuple[int, int, int]) -> float:
    latents = torch.zeros(images, *shape, device=backend.device)
    return median_seconds(lambda: backend.decode_latents(latents).cpu())


def _entry_bytes(tokens: int, width: int) -> int:
    """Return what a reference without findings takes in the server's cache."""
    digest = "0" * 64
    record = ReferenceRecord(
        digest=digest,
        width=1024,
        height=1024,
        size_bytes=1 << 19,
        format=PictureFormat.JPEG,
        warnings=(),
        created=datetime.now(UTC),
    )
    key = CacheKey(tenant="tenant", digest=digest, preprocessing="", weights_hash="")
    return entry_bytes(key, CacheEntry(tokens=np.zeros((tokens, width), np.float32), record=record))


def _upload_seconds(target: str) -> float:
    """Return the median time of uploading a picture that the server has not seen."""
    seconds = []
    gallery = Gallery(0)  # what the load tests send
    gallery.prepare(range(ROUNDS + 1))
    with Client(target) as client:
        for person in range(ROUNDS + 1):
            began = time.perf_counter()
            client.upload(gallery.picture(person).data)
            seconds.append(time.perf_counter() - began)
    return median(seconds[1:])


def _simulated_rate(machine: Machine, settings: BenchSettings) -> float:
    """Return images a second of a simulated round of `loadtests.bench.service.saturated`."""
    window = settings.window
    requests = (
        Request(id=number, at=0.0, prompt=number, steps=settings.steps) for number in range(window.asked)
    )
    fleet = Fleet(FleetSettings(machine=machine, warmup_seconds=0.0))
    run = fleet.run(ClosedLoop(requests, callers=window.callers, until=float("inf")))
    ends = sorted(call.ended for call in run.calls if call.ended is not None)
    return window.images / window.seconds(ends)


def measure(
    output: Path, *, threads: int | None = None, backend: str | None = None, dtype: str = "auto"
) -> Machine:
    """Measure this machine and write it to a file; by default with all cores and the default backend.

    Raises SimulationError, for a file whose folder cannot be made before anything is measured.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SimulationError("measure", f"{output}: {error}") from error
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    threads = threads or os.cpu_count() or 2
    settings = BenchSettings(threads=threads)
    config = EngineConfig(backend=backend or DEFAULT_BACKENDS["cpu"], dtype=dtype, threads=threads)
    machine = measure_service(measure_engine(settings, config), settings, config)
    output.write_bytes(msgspec.json.format(msgspec.json.encode(machine), indent=1) + b"\n")
    return machine


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.simulator.measure", description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--backend")
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args()
    try:
        machine = measure(
            options.output, threads=options.threads, backend=options.backend, dtype=options.dtype
        )
    except SimulationError as error:
        parser.error(str(error))
    print(msgspec.json.format(msgspec.json.encode(machine), indent=1).decode())


if __name__ == "__main__":
    main()
