"""The two loads that every side gets, as lists of asks drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from loadtests.peers.ask import Ask

PROMPTS = tuple(
    f"a portrait, {background} background, wearing a {clothes}, {expression}, {light} light"
    for background in ("blue", "green", "grey")
    for clothes in ("red shirt", "black jacket", "white sweater")
    for expression in ("smiling", "serious")
    for light in ("soft", "hard")
)
ZIPF_EXPONENT = 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What requests of a load may ask; each setting is drawn evenly and on its own, references by Zipf's law."""

    steps: tuple[int, ...]
    samplers: tuple[str, ...]
    guidance_scales: tuple[float, ...]
    ip_adapter_scales: tuple[float, ...]

    def asks(self, references: tuple[str, ...], count: int, seed: int) -> list[Ask]:
        """Draw so many asks; the same for the same seed, so that every side gets the same ones."""
        draw = random.Random(seed)
        weights = [1 / rank**ZIPF_EXPONENT for rank in range(1, len(references) + 1)]
        return [
            Ask(
                prompt=draw.choice(PROMPTS),
                reference=draw.choices(references, weights)[0],
                steps=draw.choice(self.steps),
                guidance_scale=draw.choice(self.guidance_scales),
                sampler=draw.choice(self.samplers),
                ip_adapter_scale=draw.choice(self.ip_adapter_scales),
                seed=draw.randrange(2**31),
            )
            for _ in range(count)
        ]


LOADS: Mapping[str, Load] = MappingProxyType(
    {
        "homogenous": Load(steps=(20,), samplers=("ddim",), guidance_scales=(5.0,), ip_adapter_scales=(1.0,)),
        "mixed": Load(
            steps=(15, 20, 25),
            samplers=("ddim", "dpmpp_2m", "euler"),
            guidance_scales=(4.0, 5.0, 7.0),
            ip_adapter_scales=(0.6, 0.8, 1.0),
        ),
    }
)
"""Every setting of `mixed` averages what `homogenous` asks, so that their images/s can be compared."""
