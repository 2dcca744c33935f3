"""Generate with the product's own engine, in this process: its loop, its backend, its samplers.

diffusers cannot do it: it blends all the references of a batch into every picture, and one by one it is slow.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from engine.backends.base import Backend
from engine.config import EngineConfig
from engine.embedded.quality.settings import Setting
from engine.loop.loop import EngineLoop
from engine.loop.mailbox import Mailbox
from engine.loop.process import load_backend
from engine.loop.warmup import calibrate
from engine.models.preprocess import ReferencePreprocessing
from engine.protocol.framing import Frame, Tensor
from engine.protocol.messages import Failed, Finished, ImageReady, Message, Submit

Picture = NDArray[np.uint8]

BUCKETS = (1, 8, 16)
_IN_FLIGHT = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Ask for one picture: from a seed, in a way of generating, of a `[128, 128, 3]` reference or of none.

    `guided` is the part of the denoising that guidance is limited to.
    """

    prompt: str
    reference: Picture | None
    seed: int
    setting: Setting
    guided: tuple[float, float] = (0.0, 1.0)


class Generator:
    """Hold an engine loop that is refilled the moment that a picture is done.

    A reference is encoded once, as the service's cache does. With a `clock` that stands still orders that are given at
    once begin in the same tick, whatever their admission takes.
    """

    def __init__(
        self, backend: Backend, config: EngineConfig, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._backend = backend
        facts = backend.facts
        latent = (facts.default_height // facts.latent_scale, facts.default_width // facts.latent_scale)
        offered = config.buckets_of(self._backend.buckets((facts.latent_channels, *latent)))
        calibration = calibrate(
            self._backend,
            offered,
            time.monotonic,
            decode_batch=config.decode_batch,
            patience_ticks=config.decode_patience_ticks,
            reference_batch=config.reference_batch,
        )
        self._mailbox = Mailbox()
        self._loop = EngineLoop(
            backend=self._backend,
            buckets=offered,
            calibration=calibration,
            config=config,
            inbox=self._mailbox,
            emit=self._receive,
            clock=clock,
        )
        self._clock = clock
        self._preprocessing = ReferencePreprocessing.parse(facts.preprocessing) if facts.adapters else None
        self._tokens: dict[bytes, Tensor] = {}
        self._pictures: dict[int, Picture] = {}
        self._finished = 0

    @property
    def size(self) -> int:
        """Return the side of the pictures in pixels."""
        return self._backend.facts.default_height

    def generate(self, orders: Sequence[Order]) -> Iterator[int]:
        """Generate all of them, many at once; yield each time how many more are done.

        `take` then hands the pictures over. Raises RuntimeError when the engine gives one up.
        """
        self._pictures.clear()
        waiting = iter(enumerate(orders))
        asked = self._finished = told = 0
        while self._finished < len(orders):
            while asked - self._finished < _IN_FLIGHT and (more := next(waiting, None)):
                self._submit(*more)
                asked += 1
            self._loop.turn()
            if self._finished > told:
                yield self._finished - told
                told = self._finished

    def take(self) -> Picture:
        """Return the pictures of the last `generate` in the order asked for, `[N, H, W, 3]`."""
        return np.stack([self._pictures[number] for number in range(len(self._pictures))])

    def _submit(self, number: int, order: Order) -> None:
        setting = order.setting
        job = Submit(
            job_id=str(number),
            prompt=order.prompt,
            negative_prompt="",
            sampler=setting.sampler,
            steps=setting.steps,
            guidance_scale=setting.guidance_scale,
            guidance_rescale=0.0,
            guidance_start=order.guided[0],
            guidance_end=order.guided[1],
            ip_adapter_scale=setting.ip_adapter_scale,
            width=self._backend.facts.default_width,
            height=self._backend.facts.default_height,
            seeds=(order.seed,),
        )
        tokens = None if order.reference is None else self._encode(order.reference)[None]
        self._mailbox.put(Frame(message=job, tensor=tokens), self._clock())

    def _encode(self, reference: Picture) -> Tensor:
        key = reference.tobytes()
        if self._preprocessing is None:
            raise ValueError("the model has no adapter for references")
        if key not in self._tokens:
            pixels = torch.from_numpy(np.array(self._preprocessing.apply(Image.fromarray(reference))))
            self._tokens[key] = self._backend.encode_images(pixels.unsqueeze(0))[0].float().numpy()
        return self._tokens[key]

    def _receive(self, message: Message, tensor: Tensor | None = None) -> None:
        if isinstance(message, Failed):
            raise RuntimeError(f"picture {message.job_id}: {message.message}")
        if isinstance(message, ImageReady) and tensor is not None:
            self._pictures[int(message.job_id)] = np.array(tensor)
        if isinstance(message, Finished):
            self._finished += 1


def load_generator(weights: Path, *, backend: str = "torch", buckets: Sequence[int] = BUCKETS) -> Generator:
    """Return a generator on a model directory; its engine has calibrated itself."""
    # torch: weights that are still being trained would each leave an export in the cache.
    config = EngineConfig(model=weights, backend=backend, buckets=tuple(buckets))
    return Generator(load_backend(config), config)
