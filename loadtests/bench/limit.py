"""The engine's loop alone, always full at its best bucket: what the service could reach at most."""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from PIL import Image

from engine.backends.base import Backend
from engine.config import EngineConfig
from engine.loop.loop import EngineLoop
from engine.loop.mailbox import Mailbox
from engine.loop.process import load_backend
from engine.loop.warmup import calibrate
from engine.models.preprocess import ReferencePreprocessing
from engine.protocol.framing import Frame, Tensor
from engine.protocol.messages import Failed, Finished, Message, Submit
from loadtests.bench.settings import BenchSettings
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
        self.tick_seconds = calibration.tick_seconds
        self.best_bucket = min(buckets, key=lambda bucket: self.tick_seconds[bucket] / bucket)
        self._size = backend.facts.default_height
        self._tokens = self._encode(backend)
        self._done = 0
        self._asked = 0

    def run(self, images: int) -> float:
        """Generate so many images, as many at a time as fill the best bucket; return the seconds."""
        self._done = self._asked = 0
        self._left = images
        start = time.perf_counter()
        for _ in range(self.best_bucket // 2):
            self._submit()
        while self._done < images:
            self._loop.turn()
        return time.perf_counter() - start

    def _encode(self, backend: Backend) -> Tensor:
        preprocessing = ReferencePreprocessing.parse(backend.facts.preprocessing)
        picture = Image.open(self._settings.reference).convert("RGB")
        pixels = torch.from_numpy(preprocessing.apply(picture)).unsqueeze(0)
        tokens: Tensor = backend.encode_images(pixels)[0].float().numpy()
        return tokens

    def _submit(self) -> None:
        if self._asked == self._left:
            return
        self._asked += 1
        settings = self._settings
        job = Submit(
            job_id=f"bench-{self._asked}",
            prompt=settings.prompt,
            negative_prompt="",
            sampler=settings.sampler,
            steps=settings.steps,
            guidance_scale=settings.guidance_scale,
            guidance_rescale=0.0,
            ip_adapter_scale=settings.ip_adapter_scale,
            width=self._size,
            height=self._size,
            seeds=(self._asked,),
        )
        self._mailbox.put(Frame(message=job, tensor=np.asarray(self._tokens)[None]), time.monotonic())

    def _receive(self, message: Message, tensor: Tensor | None = None) -> None:
        if isinstance(message, Failed):
            raise RuntimeError(message.message)
        if isinstance(message, Finished):
            self._done += 1
            self._submit()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--dtype", default="float32")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = BenchSettings()
    bare = BareLoop(
        settings, EngineConfig(model=settings.model, dtype=arguments.dtype, threads=arguments.threads)
    )

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if "images" in request:
            return {"seconds": bare.run(request["images"])}
        return {"tick_seconds": bare.tick_seconds, "best_bucket": bare.best_bucket}

    serve(answer)


if __name__ == "__main__":
    main()
