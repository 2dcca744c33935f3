"""The engine's loop alone, always full at its best bucket: what the service could reach at most."""

from __future__ import annotations

import argparse
import time
from itertools import count
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from engine.config import DEFAULT_BACKENDS, EngineConfig
from engine.loop.loop import EngineLoop
from engine.loop.mailbox import Mailbox
from engine.loop.process import load_backend
from engine.loop.warmup import calibrate
from engine.models.preprocess import ReferencePreprocessing
from engine.protocol.framing import Frame, Tensor
from engine.protocol.messages import Failed, Finished, ImageReady, Message, Submit
from loadtests.bench.settings import BenchSettings
from loadtests.bench.window import Window
from loadtests.bench.worker import serve


class BareLoop:
    """An engine loop in this process whose mailbox is refilled the moment that an image is done."""

    def __init__(self, settings: BenchSettings, config: EngineConfig) -> None:
        self._settings = settings
        backend = load_backend(config)
        side = backend.facts.default_height // backend.facts.latent_scale
        shape = (backend.facts.latent_channels, side, side)
        buckets = config.buckets_of(backend.buckets(shape))
        self._mailbox = Mailbox()
        calibration = calibrate(
            backend,
            buckets,
            time.monotonic,
            decode_batch=config.decode_batch,
            patience_ticks=2,
            reference_batch=config.reference_batch,
        )
        self._loop = EngineLoop(
            backend=backend,
            buckets=buckets,
            calibration=calibration,
            config=config,
            inbox=self._mailbox,
            emit=self._receive,
            clock=time.monotonic,
        )
        self.calibration = calibration
        self.tick_seconds = calibration.tick_seconds
        self.best_bucket = min(buckets, key=lambda bucket: self.tick_seconds[bucket] / bucket)
        self._own_size = self._size = (backend.facts.default_height, backend.facts.default_height)
        self.backend = backend
        self._people = [self._encode(reference) for reference in settings.references]
        self._portraits = count()
        self._drawn: Tensor | None = None
        self._ends: list[float] = []
        self._asked = 0

    @property
    def fill(self) -> int:
        """Return how many guided images fill the best bucket."""
        return max(1, self.best_bucket // 2)

    def rate(self, images: int) -> float:
        """Return the images a second of a closed loop that fills the best bucket, over at least so many.

        What is counted is a `Window`, as of the saturated service. Images of a batch end together, so the number is
        rounded up to whole batches.
        """
        window = Window(callers=self.fill, images=-(-images // self.fill) * self.fill)
        self.run(window.asked)
        return window.images / window.seconds(self._ends)

    def run(self, images: int, in_flight: int | None = None, *, size: tuple[int, int] | None = None) -> float:
        """Generate so many images, by default as many at a time as fill the best bucket; return the seconds.

        The seconds are from the first question to the last answer. size: width and height in pixels, by default the
        model's own.
        """
        self._ends = []
        self._asked = 0
        self._size = size or self._own_size
        self._left = images
        start = time.perf_counter()
        for _ in range(in_flight or self.fill):
            self._submit()
        while len(self._ends) < images:
            self._loop.turn()
        return time.perf_counter() - start

    def draw(self, prompt: str, reference: Path, *, seed: int) -> Tensor:
        """Generate one image ``[H, W, 3]`` of another prompt, reference and seed than the benchmark's."""
        self._ends = []
        self._asked = self._left = 0
        self._drawn = None
        self._size = self._own_size
        self._put(prompt, self._encode(reference), seed)
        while not self._ends:
            self._loop.turn()
        assert self._drawn is not None
        return self._drawn

    def _encode(self, reference: Path) -> Tensor:
        preprocessing = ReferencePreprocessing.parse(self.backend.facts.preprocessing)
        picture = Image.open(reference).convert("RGB")
        pixels = torch.from_numpy(preprocessing.apply(picture).copy()).unsqueeze(0)
        tokens: Tensor = self.backend.encode_images(pixels)[0].float().numpy()
        return tokens

    def _submit(self) -> None:
        if self._asked == self._left:
            return
        self._asked += 1
        number = next(self._portraits)
        self._put(self._settings.prompt(number), self._people[self._settings.person(number)], number)

    def _put(self, prompt: str, tokens: Tensor, seed: int) -> None:
        settings = self._settings
        job = Submit(
            job_id=f"bench-{seed}",
            prompt=prompt,
            negative_prompt="",
            sampler=settings.sampler,
            steps=settings.steps,
            guidance_scale=settings.guidance_scale,
            guidance_rescale=0.0,
            ip_adapter_scale=settings.ip_adapter_scale,
            width=self._size[0],
            height=self._size[1],
            seeds=(seed,),
        )
        self._mailbox.put(Frame(message=job, tensor=tokens[None]), time.monotonic())

    def _receive(self, message: Message, tensor: Tensor | None = None) -> None:
        if isinstance(message, Failed):
            raise RuntimeError(message.message)
        if isinstance(message, ImageReady):
            self._drawn = tensor
        if isinstance(message, Finished):
            self._ends.append(time.perf_counter())
            self._submit()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--backend", default=DEFAULT_BACKENDS["cpu"])
    parser.add_argument("--lanes", type=int, default=1)
    parser.add_argument("--buckets", type=int, nargs="+")
    parser.add_argument("--torch-threads", type=int, help="in place of what the engine gives it")
    arguments = parser.parse_args()
    settings = BenchSettings()
    config = EngineConfig(
        model=settings.model,
        backend=arguments.backend,
        dtype=arguments.dtype,
        threads=arguments.threads,
        lanes=arguments.lanes,
        buckets=None if arguments.buckets is None else tuple(arguments.buckets),
    )
    bare = BareLoop(settings, config)
    if arguments.torch_threads is not None:
        torch.set_num_threads(arguments.torch_threads)

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if "images" in request:
            return {"seconds": bare.run(request["images"])}
        if "steady_images" in request:
            return {"rate": bare.rate(request["steady_images"])}
        return {"tick_seconds": bare.tick_seconds, "best_bucket": bare.best_bucket, "fill": bare.fill}

    serve(answer)


if __name__ == "__main__":
    main()
