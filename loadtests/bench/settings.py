"""What every side of the benchmark generates."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from engine.embedded import model_directory, reference_portraits
from loadtests.bench.window import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSettings:
    """One portrait, and how often it is made."""

    model: Path = field(default_factory=model_directory)
    reference: Path = field(default_factory=lambda: sorted(reference_portraits().values())[0])
    prompt: str = "a portrait, blue background, wearing a red shirt, smiling, soft light"
    sampler: str = "ddim"
    steps: int = 20
    guidance_scale: float = 5.0
    ip_adapter_scale: float = 1.0
    threads: int = 2
    rounds: int = 5
    images_a_round: int = 32
    concurrency: int = 32
    latency_requests: int = 5
    peer_images: int = 12

    @property
    def window(self) -> Window:
        """Return what is counted of a round of the saturated service."""
        return Window(callers=self.concurrency, images=self.images_a_round)
