"""The portraits whose calls of the model tell a quantiser what ranges to expect."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.peers.ask import Ask

IMAGES = 8
STEPS = 20
PROMPTS = (
    "a portrait of a woman, smiling, green jacket, in front of a yellow wall",
    "a watercolor painting of a man, serious, blue shirt, on a beach",
    "a pixel art portrait of a person, laughing, red pullover, pink background",
    "a close-up photo of a woman, sad, black hoodie, in the city at night",
    "an illustration of a man in a gold crown, purple sweater, teal gradient background",
    "a flat portrait of a person, astonished, orange beanie, in front of a skyline",
    "a portrait of a man, dramatic light, green jumper, at the seaside",
    "a bust of a person, neutral, white blazer, in a forest, warm light",
)
"""In the words that the model in the box knows, which its users would calibrate with."""


def calibration_asks(references: Sequence[str], count: int = IMAGES, steps: int = STEPS) -> list[Ask]:
    """Return requests with guidance that take `PROMPTS` and `references` in turn."""
    return [
        Ask(
            prompt=PROMPTS[number % len(PROMPTS)],
            reference=references[number % len(references)],
            steps=steps,
            guidance_scale=5.0,
            sampler="ddim",
            ip_adapter_scale=1.0,
            seed=number,
        )
        for number in range(count)
    ]
