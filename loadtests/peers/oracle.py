"""Write what diffusers' pipeline makes of one ask, called as its own documentation calls it.

Not through `PeerPipeline`: a mistake in how that batches or caches would otherwise be compared with itself.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from PIL import Image

from loadtests.diffusers_pipeline import load_pipeline
from loadtests.peers.ask import Ask, parse_ask


def draw(ask: Ask, model: Path, references: Path) -> Image.Image:
    """Return the picture of an ask, in float32, with the model's own scheduler, which must be the sampler asked for."""
    pipe = load_pipeline(model)
    pipe.set_ip_adapter_scale(ask.ip_adapter_scale)
    if ask.sampler != "ddim" or type(pipe.scheduler).__name__ != "DDIMScheduler":
        raise ValueError(f"sampler must be ddim, the model's own, not {ask.sampler}")
    picture: Image.Image = pipe(
        ask.prompt,
        ip_adapter_image=Image.open(references / f"{ask.reference}.png").convert("RGB"),
        num_inference_steps=ask.steps,
        guidance_scale=ask.guidance_scale,
        generator=torch.Generator().manual_seed(ask.seed),
    ).images[0]
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--references", type=Path, required=True)
    parser.add_argument("--ask", required=True, help="as JSON")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    draw(parse_ask(json.loads(arguments.ask)), arguments.model, arguments.references).save(arguments.out)


if __name__ == "__main__":
    main()
