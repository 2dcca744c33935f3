"""The arithmetic of one image, counted, and the rates at which this machine does such arithmetic, measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from loadtests.diffusers_pipeline import load_pipeline

GEMM_SIDE = 2048
CONVOLUTION = (8, 160, 32, 32)
"""Rows, channels, height and width: the model's widest convolutions on more pixels, so that edges cost little."""
ONCE = (".attn2.to_k", ".attn2.to_v")
"""Projections of prompt and reference, which the engine computes once a request; the adapter's sit in the processor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flops:
    """Floating-point operations, a multiplication and an addition counted as two."""

    convolution: float
    matrix: float

    def __add__(self, other: Flops) -> Flops:
        return Flops(convolution=self.convolution + other.convolution, matrix=self.matrix + other.matrix)

    def times(self, count: float) -> Flops:
        """Return the operations of so many repetitions."""
        return Flops(convolution=self.convolution * count, matrix=self.matrix * count)

    def seconds(self, rates: Rates) -> float:
        """Return how long they take at these rates."""
        return self.convolution / rates.convolution + self.matrix / rates.matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Operations a second."""

    convolution: float
    matrix: float


def count_flops(call: Callable[[], Any], *, once: Sequence[str] = ()) -> tuple[Flops, Flops]:
    """Count the operations of a call of modules: all but those in modules whose names end in `once`, and those."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    found = counter.get_flop_counts()
    apart = [_split(ops) for name, ops in found.items() if name.endswith(tuple(once))] if once else []
    aside = sum(apart, Flops(convolution=0.0, matrix=0.0))
    return _split(found["Global"]) + aside.times(-1), aside


def _split(operations: dict[Any, int]) -> Flops:
    convolution = sum(count for name, count in operations.items() if "conv" in str(name))
    return Flops(convolution=convolution, matrix=sum(operations.values()) - convolution)


def image_flops(model: Path, steps: int) -> Flops:
    """Count what one guided image with one reference needs: UNet, projections once, VAE. Encoders are left out."""
    pipe = load_pipeline(model)
    unet, vae = pipe.unet, pipe.vae
    side, channels = unet.config.sample_size, unet.config.in_channels
    sample = torch.zeros(2, channels, side, side)
    text = torch.zeros(2, pipe.tokenizer.model_max_length, unet.config.cross_attention_dim)
    image = torch.zeros(2, 1, pipe.image_encoder.config.projection_dim)
    step, once = count_flops(
        lambda: unet(sample, 1, encoder_hidden_states=text, added_cond_kwargs={"image_embeds": [image]}),
        once=(*ONCE, ".processor.to_k_ip.0", ".processor.to_v_ip.0"),
    )
    decoder, _ = count_flops(lambda: vae.decode(sample[:1]))
    return step.times(steps) + once + decoder


def measure_rates(dtype: str, *, seconds: float = 2.0) -> Rates:
    """Measure oneDNN's best rates through torch, with the threads that torch has, for about so long each."""
    kind = getattr(torch, dtype)
    with torch.inference_mode():
        a, b = (torch.randn(GEMM_SIDE, GEMM_SIDE, dtype=kind) for _ in range(2))
        matrix = 2 * GEMM_SIDE**3 / _least(lambda: a @ b, seconds)
        rows, channels, height, width = CONVOLUTION
        work = 2 * rows * height * width * channels * channels * 9
        layouts = []
        for layout in (torch.contiguous_format, torch.channels_last):
            layer = torch.nn.Conv2d(channels, channels, 3, padding=1).to(kind)
            layer.weight.data = layer.weight.data.contiguous(memory_format=layout)
            pixels = torch.randn(CONVOLUTION, dtype=kind).to(memory_format=layout)
            layouts.append(work / _least(partial(layer, pixels), seconds / 2))
    return Rates(convolution=max(layouts), matrix=matrix)


def _least(call: Callable[[], Any], seconds: float) -> float:
    call()
    least = float("inf")
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        least = min(least, time.perf_counter() - start)
    return least
