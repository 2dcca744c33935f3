"""Measure the export: who and what is read back from generated pictures, and how well the VAE reconstructs.

The reader is the trained image tower with its attribute heads, so it is not independent of the model: it says
whether the model draws what it was told, as that tower sees it. Its accuracy on drawings stands beside.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from PIL import Image

from engine.embedded.recipe.assemble import load_reader
from engine.embedded.recipe.data import ATTRIBUTES, IDENTITY_NAMES, Drawings, identity_of, scene_of
from engine.embedded.recipe.joint import Reader
from engine.embedded.recipe.sheets import load_pipeline
from engine.embedded.recipe.towers import normalise
from engine.embedded.recipe.vae import psnr
from engine.embedded.world import caption


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Name one way of generating."""

    name: str
    scale: float
    guidance: float = 3.0
    steps: int = 20
    describe: bool = False


SETTINGS = (
    Setting(name="reference, scale 1", scale=1.0),
    Setting(name="scale 0", scale=0.0),
    Setting(name="text describes the person, scale 0", scale=0.0, describe=True),
)


def measure(weights: Path, directory: Path, held_out: Drawings, out: Path, *, pairs: int = 96) -> None:
    """Write `out` (JSON) and print it: accuracy by attribute on drawings and on generated pictures."""
    pipe, reader = load_pipeline(weights), load_reader(directory)
    target = np.arange(pairs) * len(held_out) // pairs
    other = held_out.other_scene(target, np.random.default_rng(0))
    labels, references = held_out.labels[target], held_out.images[other]
    report: dict[str, object] = {
        "pairs": pairs,
        "vae_psnr_db": round(psnr(pipe.vae, held_out.images[target]), 2),
        "drawings": _accuracy(reader, held_out.images[target], labels),
    }
    for setting in SETTINGS:
        report[setting.name] = _accuracy(reader, _generate(pipe, setting, labels, references), labels)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


def _generate(
    pipe: StableDiffusionPipeline, setting: Setting, labels: NDArray[np.uint8], references: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    # One by one: diffusers takes a batch of images for several references of one prompt, not one for each.
    random, pictures = Random(0), []
    pipe.set_ip_adapter_scale(setting.scale)
    for number, (row, reference) in enumerate(zip(labels, references, strict=True)):
        who = identity_of(row) if setting.describe else None
        pictures += pipe(
            caption(scene_of(row), random, identity=who, keep=1.0),
            ip_adapter_image=Image.fromarray(reference),
            guidance_scale=setting.guidance,
            num_inference_steps=setting.steps,
            generator=torch.Generator().manual_seed(number),
        ).images
    return np.stack([np.asarray(picture) for picture in pictures])


@torch.no_grad()
def _accuracy(reader: Reader, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> dict[str, float]:
    read = reader(normalise(images)).numpy()
    by_name = {name: float((read[:, i] == labels[:, i]).mean()) for i, name in enumerate(ATTRIBUTES)}
    known = len(IDENTITY_NAMES)
    values = list(by_name.values())
    means = {"identity": float(np.mean(values[:known])), "scene": float(np.mean(values[known:]))}
    return {name: round(value, 3) for name, value in {**by_name, **means}.items()}
