"""The engine's loop in this process, over a backend that is already made."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from engine.backends.base import Backend
from engine.config import EngineConfig
from engine.loop.decoding import DecodePlan
from engine.loop.loop import EngineLoop
from engine.loop.mailbox import Mailbox
from engine.loop.preview import LatentPreview
from engine.loop.warmup import Calibration
from engine.models.preprocess import ReferencePreprocessing
from engine.protocol.framing import Frame, Tensor
from engine.protocol.messages import Failed, Finished, ImageReady, Message, Submit

Pictures = list[NDArray[np.uint8]]


def picture(number: int) -> Image.Image:
    """Return a reference: smooth colours, another for each number."""
    coarse = np.random.default_rng(number).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((80, 100), Image.Resampling.BICUBIC)


class LoopDriver:
    """Submit jobs and turn the loop until they are done. The cost curve is a guess unless one is given."""

    def __init__(
        self, backend: Backend, *, tick_seconds: dict[int, float] | None = None, decode: int = 2
    ) -> None:
        facts = backend.facts
        scale = facts.latent_scale
        shape = (facts.latent_channels, facts.default_height // scale, facts.default_width // scale)
        buckets = backend.buckets(shape)
        self.backend = backend
        self._mailbox = Mailbox()
        self.pictures: dict[str, dict[int, NDArray[np.uint8]]] = {}
        self.finished = 0
        self._loop = EngineLoop(
            backend=backend,
            buckets=buckets,
            calibration=Calibration(
                shape=shape,
                tick_seconds=tick_seconds or {bucket: 0.01 + 0.002 * bucket for bucket in buckets},
                decode_seconds={1: 0.01, decode: 0.006 * decode},
                decode_plan=DecodePlan(batch=decode, patience_ticks=2),
                preview=LatentPreview(
                    weight=torch.zeros(3, facts.latent_channels, device=backend.device),
                    bias=torch.zeros(3, device=backend.device),
                ),
            ),
            config=EngineConfig(max_waiting=10_000),
            inbox=self._mailbox,
            emit=self._emit,
            clock=time.monotonic,
        )

    def encode(self, *images: Image.Image, adapter: str | None = None) -> Tensor:
        """Return the tokens of a job's references, ``[references, tokens, width]``; None is the default adapter."""
        preprocessing = ReferencePreprocessing.parse(self.backend.facts.preprocessing)
        pixels = torch.stack([torch.tensor(preprocessing.apply(image)) for image in images])
        tokens: Tensor = self.backend.encode_images(pixels, adapter).float().cpu().numpy()
        return tokens

    def submit(self, tokens: Tensor | None, **settings: Any) -> None:
        """Let a job wait; ``settings`` are fields of ``Submit``."""
        facts = self.backend.facts
        fields: dict[str, Any] = {
            "job_id": "job",
            "prompt": "a portrait of a man with a red hat",
            "negative_prompt": "",
            "sampler": "ddim",
            "steps": 20,
            "guidance_scale": 5.0,
            "guidance_rescale": 0.0,
            "ip_adapter_scale": 1.0,
            "width": facts.default_width,
            "height": facts.default_height,
            "seeds": (1,),
        }
        message = Submit(**{**fields, **settings})
        self._mailbox.put(Frame(message=message, tensor=tokens), time.monotonic())

    def turn(self) -> None:
        """Let the loop do one round."""
        self._loop.turn()

    def finish(self) -> dict[str, Pictures]:
        """Turn until nothing is in flight; return each job's pictures in order."""
        self.turn()
        while self._loop.busy:
            self.turn()
        done, self.pictures = self.pictures, {}
        return {job: [found[index] for index in sorted(found)] for job, found in done.items()}

    def rate(self, tokens: Tensor | None, *, images: int, in_flight: int, **settings: Any) -> float:
        """Return images a second with so many images in flight, the queue refilled as they finish."""
        asked, self.finished = 0, 0
        began = time.perf_counter()
        while self.finished < images:
            while asked < images and asked - self.finished < in_flight:
                self.submit(tokens, job_id=f"job-{asked}", seeds=(asked,), **settings)
                asked += 1
            self.turn()
        self.pictures = {}
        return images / (time.perf_counter() - began)

    def _emit(self, message: Message, tensor: Tensor | None = None) -> None:
        if isinstance(message, Failed):
            raise RuntimeError(f"{message.reason}: {message.message}")
        if isinstance(message, ImageReady):
            assert tensor is not None
            self.pictures.setdefault(message.job_id, {})[message.index] = tensor
        if isinstance(message, Finished):
            self.finished += 1


def largest_error(ours: Sequence[NDArray[Any]], theirs: Sequence[NDArray[Any]]) -> tuple[int, float]:
    """Return the largest and the mean difference of any pixel channel, of 255."""
    assert len(ours) == len(theirs)
    gaps = [np.abs(a.astype(np.int16) - b.astype(np.int16)) for a, b in zip(ours, theirs, strict=True)]
    return max(int(gap.max()) for gap in gaps), float(np.mean([gap.mean() for gap in gaps]))
