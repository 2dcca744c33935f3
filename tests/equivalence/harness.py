"""Both sides of the comparison: our engine's loop on a real backend, and diffusers' own pipeline."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.image_processor import IPAdapterMaskProcessor
from numpy.typing import NDArray
from PIL import Image

from engine.backends.base import Backend
from engine.backends.registry import create_backend
from engine.config import EngineConfig
from engine.loop.decoding import DecodePlan
from engine.loop.loop import EngineLoop
from engine.loop.mailbox import Mailbox
from engine.loop.preview import LatentPreview
from engine.loop.warmup import Calibration
from engine.models.preprocess import ReferencePreprocessing
from engine.models.regions import Box
from engine.protocol.framing import Frame, Tensor
from engine.protocol.messages import (
    EncodeReference,
    Failed,
    ImageReady,
    Message,
    ReferenceEncoded,
    Submit,
)
from tests.keeping import kept
from tests.samplers.oracle import ORACLES
from tests.tinymodels import open_pipeline

Pictures = list[NDArray[np.uint8]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One request. ``scale`` None means no reference; ``seeds`` has one for each image.

    ``others`` are references beside ``reference``. ``layer_scales`` is diffusers' word for ``layers``, the scale in it.
    """

    sampler: str
    steps: int
    guidance: float = 5.0
    scale: float | None = 1.0
    negative: str = ""
    prompt: str = "a portrait of a man with a red hat"
    rescale: float = 0.0
    seeds: tuple[int, ...] = (11,)
    size: tuple[int, int] | None = None
    reference: int = 0
    others: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    regions: tuple[Box | None, ...] = ()
    interval: tuple[float, float] = (0.0, 1.0)
    layers: str = "all"
    layer_scales: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        parts = [self.sampler, f"{self.steps}st", f"g{self.guidance:g}"]
        parts.append("noref" if self.scale is None else f"s{self.scale:g}")
        parts += ["neg"] if self.negative else []
        parts += [f"r{self.rescale:g}"] if self.rescale else []
        parts += ["guided{:g}to{:g}".format(*self.interval)] if self.interval != (0, 1) else []
        parts += [f"x{len(self.seeds)}"] if len(self.seeds) > 1 else []
        parts += ["{}x{}".format(*self.size)] if self.size else []
        parts += [f"{1 + len(self.others)}refs"] if self.others else []
        parts += [f"{len(self.regions)}regions"] if self.regions else []
        parts += [self.layers] if self.layers != "all" else []
        return "-".join(parts)


def portrait(number: int) -> Image.Image:
    """Return a reference: smooth colours and a hard edge, not square, another for each number."""
    generator = np.random.default_rng(number)
    coarse = generator.integers(0, 256, (5, 4, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((80 + 8 * (number % 3), 100), Image.Resampling.BICUBIC)
    image.paste((255, 255, 255), (20, 20, 40, 60 + number))
    return image


class Engine:
    """Our loop, driven turn by turn in this thread."""

    def __init__(self, root: Path, adapter: str | None = None, backend: Backend | None = None) -> None:
        self.backend: Backend = backend or create_backend("torch", root, adapter=adapter)
        self._mailbox = Mailbox()
        self.sent: list[Frame] = []
        facts = self.backend.facts
        cells = facts.default_height // facts.latent_scale
        shape = (facts.latent_channels, cells, cells)
        buckets = self.backend.buckets(shape)
        self.loop = EngineLoop(
            backend=self.backend,
            buckets=buckets,
            calibration=Calibration(
                shape=shape,
                tick_seconds={bucket: 0.01 + 0.002 * bucket for bucket in buckets},
                decode_seconds={1: 0.01, 2: 0.015},
                decode_plan=DecodePlan(batch=2, patience_ticks=2),
                preview=LatentPreview(weight=torch.zeros(3, facts.latent_channels), bias=torch.zeros(3)),
            ),
            config=EngineConfig(deterministic_bucket=4, max_waiting=1000),
            inbox=self._mailbox,
            emit=self._emit,
            clock=time.monotonic,
        )

    def encode(self, references: Sequence[Image.Image]) -> list[Tensor]:
        """Preprocess and encode references, all of them at once."""
        preprocessing = ReferencePreprocessing.parse(self.backend.facts.preprocessing)
        for number, image in enumerate(references):
            message = EncodeReference(request_id=str(number))
            self._mailbox.put(Frame(message=message, tensor=preprocessing.apply(image)), time.monotonic())
        self.sent.clear()
        self.loop.turn()
        while self.loop.busy:
            self.loop.turn()
        tokens = {
            frame.message.request_id: frame.tensor
            for frame in self.sent
            if isinstance(frame.message, ReferenceEncoded)
        }
        return [tokens[str(number)] for number in range(len(references))]  # type: ignore[misc]

    def draw(self, jobs: Sequence[tuple[Submit, Tensor | None]]) -> dict[str, Pictures]:
        """Run jobs, all of them at once, to their pictures."""
        for submit, tokens in jobs:
            self._mailbox.put(Frame(message=submit, tensor=tokens), time.monotonic())
        self.sent.clear()
        self.loop.turn()
        while self.loop.busy:
            self.loop.turn()
        pictures: dict[str, Pictures] = {submit.job_id: [] for submit, _ in jobs}
        ready = [
            (frame.message, frame.tensor) for frame in self.sent if isinstance(frame.message, ImageReady)
        ]
        for message, tensor in sorted(ready, key=lambda pair: pair[0].index):
            assert tensor is not None
            pictures[message.job_id].append(tensor)
        failed = [frame.message for frame in self.sent if isinstance(frame.message, Failed)]
        assert not failed, failed
        return pictures

    def submit(self, case: Case, job_id: str = "job", **changes: Any) -> Submit:
        """Return the job that a case stands for."""
        facts = self.backend.facts
        height, width = case.size or (facts.default_height, facts.default_width)
        settings: dict[str, Any] = {
            "job_id": job_id,
            "prompt": case.prompt,
            "negative_prompt": case.negative,
            "sampler": case.sampler,
            "steps": case.steps,
            "guidance_scale": case.guidance,
            "guidance_rescale": case.rescale,
            "ip_adapter_scale": 1.0 if case.scale is None else case.scale,
            "width": width,
            "height": height,
            "seeds": case.seeds,
            "reference_weights": case.weights,
            "reference_regions": case.regions,
            "reference_layers": case.layers,
            "guidance_start": case.interval[0],
            "guidance_end": case.interval[1],
        }
        return Submit(**{**settings, **changes})

    def draw_case(self, case: Case) -> Pictures:
        """Draw one case by itself."""
        tokens = None
        if case.scale is not None:
            numbers = (case.reference, *case.others)
            tokens = np.stack(self.encode([portrait(number) for number in numbers]))
        return self.draw([(self.submit(case), tokens)])["job"]

    def _emit(self, message: Message, tensor: Tensor | None = None) -> None:
        self.sent.append(Frame(message=message, tensor=tensor))


@kept
def _pipeline(root: Path, adapter: str | None) -> Any:
    return open_pipeline(root, adapter=adapter)


def draw_with_diffusers(root: Path, adapter: str | None, case: Case) -> Pictures:
    """Draw a case with diffusers, in float32; without a reference, on a pipeline without an adapter."""
    pipeline = _pipeline(root, None if case.scale is None else adapter)
    scheduler, overrides = ORACLES[case.sampler]
    pipeline.scheduler = scheduler.from_config(_scheduler_config(root), **overrides)
    referenced: dict[str, Any] = {}
    if case.scale is not None:
        numbers = (case.reference, *case.others)
        weights = [case.scale * weight for weight in case.weights or (1.0,) * len(numbers)]
        pipeline.set_ip_adapter_scale(
            [weights] if case.regions and case.weights else case.layer_scales or case.scale
        )
        referenced["ip_adapter_image"] = [[portrait(number) for number in numbers]]
    height, width = case.size or (None, None)
    if case.regions:
        side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
        masks = _masks(case.regions, height or side, width or side)
        referenced["cross_attention_kwargs"] = {"ip_adapter_masks": [masks]}
    start, end = case.interval

    def guidance(step: int) -> float:
        # diffusers cannot begin without guidance, but at (almost) 1 it has no effect.
        guided = start <= step / case.steps and (step + 1) / case.steps <= end
        return case.guidance if guided else min(case.guidance, 1 + 1e-7)

    def set_next(pipe: Any, step: int, moment: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        pipe._guidance_scale = guidance(step + 1)
        return tensors

    pictures = pipeline(
        case.prompt,
        negative_prompt=case.negative or None,
        num_inference_steps=case.steps,
        guidance_scale=guidance(0),
        callback_on_step_end=set_next,
        guidance_rescale=case.rescale,
        num_images_per_prompt=len(case.seeds),
        generator=[torch.Generator().manual_seed(seed) for seed in case.seeds],
        height=height,
        width=width,
        output_type="pil",
        **referenced,
    ).images
    return [np.asarray(picture) for picture in pictures]


def _masks(regions: Sequence[Box | None], height: int, width: int) -> torch.Tensor:
    """Return what diffusers makes of pictures that are white in the regions, ``[1, references, H, W]``."""
    drawn = []
    for region in regions:
        mask = np.zeros((height, width), np.uint8)
        left, top, right, bottom = region or (0.0, 0.0, 1.0, 1.0)
        mask[round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = 255
        drawn.append(Image.fromarray(mask))
    masks: torch.Tensor = IPAdapterMaskProcessor().preprocess(drawn, height=height, width=width)
    return masks.transpose(0, 1)


@kept
def _scheduler_config(root: Path) -> dict[str, Any]:
    return dict(_pipeline(root, None).scheduler.config)


def max_channel_error(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> int:
    """Return the largest difference of any pixel channel, of 255."""
    assert len(ours) == len(theirs)
    return max(
        int(np.abs(mine.astype(np.int16) - other.astype(np.int16)).max())
        for mine, other in zip(ours, theirs, strict=True)
    )
