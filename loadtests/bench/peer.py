"""diffusers' own pipeline, called request by request: what people run today."""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from diffusers import DDIMScheduler
from PIL import Image

from loadtests.bench.settings import BenchSettings
from loadtests.bench.worker import serve
from loadtests.diffusers_pipeline import load_pipeline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = BenchSettings()
    pipeline = load_pipeline(settings.model, arguments.dtype)
    pipeline.set_ip_adapter_scale(settings.ip_adapter_scale)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    # The peer gets what Limner's cache gives: references are encoded once, outside the measured time.
    people = [
        pipeline.prepare_ip_adapter_image_embeds(
            Image.open(reference).convert("RGB"), None, "cpu", 1, do_classifier_free_guidance=True
        )
        for reference in settings.references
    ]

    def generate(seed: int) -> float:
        start = time.perf_counter()
        pipeline(
            settings.prompt(seed),
            ip_adapter_image_embeds=people[settings.person(seed)],
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance_scale,
            generator=torch.Generator().manual_seed(seed),
        )
        return time.perf_counter() - start

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        return {"seconds": [generate(seed) for seed in range(request["images"])]}

    serve(answer)


if __name__ == "__main__":
    main()
