"""diffusers' pipeline as its best users serve it: references encoded once, requests batched wherever it allows.

One call of `StableDiffusionPipeline` shares its number of steps, guidance, scheduler and adapter scale; prompts and
seeds may differ, and, with a method of the pipeline replaced, references. What mixes more runs as several calls.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import diffusers
import torch
from PIL import Image

from loadtests.diffusers_pipeline import load_pipeline
from loadtests.peers.ask import Ask

PNG = {"compress_level": 1, "compress_type": zlib.Z_RLE}
"""How Limner codes (server/imaging/encode.py). Pillow's default takes four times as long, which would count against the
peers alone."""
# What Limner's sampler names stand for: engine/samplers/registry.py.
_SIGMAS = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
_DPMPP = {"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint", **_SIGMAS}
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    "euler": ("EulerDiscreteScheduler", _SIGMAS),
    "euler_ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", _DPMPP),
    "dpmpp_2m_karras": ("DPMSolverMultistepScheduler", {**_DPMPP, "use_karras_sigmas": True}),
    "unipc": ("UniPCMultistepScheduler", {"solver_type": "bh2", "solver_order": 2, **_SIGMAS}),
}


class UnknownReferenceError(KeyError):
    """A reference that the folder of references does not hold."""


class UnknownSamplerError(KeyError):
    """A sampler without a scheduler of diffusers."""


def group_asks(asks: Sequence[Ask]) -> list[list[int]]:
    """Return positions of `asks` by what one call of the pipeline can hold, in the order of their first."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for position, ask in enumerate(asks):
        groups.setdefault(ask.group, []).append(position)
    return list(groups.values())


def to_png(picture: Image.Image) -> bytes:
    """Return a picture as PNG, the format that every side answers in."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", **PNG)
    return buffer.getvalue()


class PeerPipeline:
    """Generates portraits with diffusers' own pipeline; not to be called by two threads at once.

    `references` holds pictures named ``<reference>.png``.
    """

    def __init__(self, model: Path, references: Path, *, dtype: str = "float32") -> None:
        self._references = references
        self._embeddings: dict[str, torch.Tensor] = {}
        self.pipe = load_pipeline(model, dtype)
        self.calls = 0
        self._prepare = self.pipe.prepare_ip_adapter_image_embeds
        # The pipeline repeats the embeddings that it is given for every prompt, so a batch of them no longer fits its
        # rows and the attention mixes them in silence (huggingface/diffusers#9813). Ours have a row for each already.
        self.pipe.prepare_ip_adapter_image_embeds = _as_given
        # Now and not with the first ask that shows somebody: Limner's uploads are not timed either.
        for path in sorted(references.glob("*.png")):
            self._embed(path.stem)

    @cached_property
    def _scheduler_config(self) -> dict[str, Any]:
        return dict(self.pipe.scheduler.config)

    def generate(self, asks: Sequence[Ask]) -> list[Image.Image]:
        """Generate the pictures of `asks`, in their order, in as few calls of the pipeline as it allows.

        Raises ``UnknownReferenceError`` and ``UnknownSamplerError`` before anything is computed.
        """
        for ask in asks:
            self._embed(ask.reference)
            if ask.sampler not in SCHEDULERS:
                raise UnknownSamplerError(f"sampler {ask.sampler!r} is none of {', '.join(SCHEDULERS)}")
        pictures: dict[int, Image.Image] = {}
        for positions in group_asks(asks):
            done = self._call([asks[position] for position in positions])
            pictures.update(zip(positions, done, strict=True))
        return [pictures[position] for position in range(len(asks))]

    def set_scale(self, scale: float) -> None:
        """Set the adapter's scale for the next call."""
        self.pipe.set_ip_adapter_scale(scale)

    def _call(self, asks: Sequence[Ask]) -> list[Image.Image]:
        first = asks[0]
        name, overrides = SCHEDULERS[first.sampler]
        config = self._scheduler_config
        self.pipe.scheduler = getattr(diffusers, name).from_config(config, **overrides)
        self.set_scale(first.ip_adapter_scale)
        halves = [self._embed(ask.reference).chunk(2) for ask in asks]
        embeddings = torch.cat([positive for _, positive in halves])
        if first.guidance_scale > 1:
            embeddings = torch.cat([*[negative for negative, _ in halves], embeddings])
        self.calls += 1
        with torch.inference_mode():
            return list(
                self.pipe(
                    [ask.prompt for ask in asks],
                    ip_adapter_image_embeds=[embeddings],
                    num_inference_steps=first.steps,
                    guidance_scale=first.guidance_scale,
                    generator=[torch.Generator().manual_seed(ask.seed) for ask in asks],
                ).images
            )

    def _embed(self, reference: str) -> torch.Tensor:
        """Return ``[2, 1, E]``, negative first; computed once a reference, as Limner's cache gives it."""
        if reference not in self._embeddings:
            path = self._references / f"{reference}.png"
            if not path.is_file():
                raise UnknownReferenceError(f"no reference {reference!r} in {self._references}")
            picture = Image.open(path).convert("RGB")
            with torch.inference_mode():
                (self._embeddings[reference],) = self._prepare(
                    picture, None, "cpu", 1, do_classifier_free_guidance=True
                )
        return self._embeddings[reference]


def _as_given(image: None, embeddings: list[torch.Tensor], *_: Any) -> list[torch.Tensor]:
    return embeddings
