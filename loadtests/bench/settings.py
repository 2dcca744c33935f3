"""What every side of the benchmark generates."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from engine.embedded import model_directory, reference_portraits
from engine.embedded.world import caption, sample_scene
from loadtests.bench.window import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSettings:
    """Portraits that differ in scene, person and seed alone, and how many of them are made.

    references: the people, known to every side before anything is measured.
    """

    model: Path = field(default_factory=model_directory)
    references: tuple[Path, ...] = field(default_factory=lambda: tuple(reference_portraits().values()))
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

    def prompt(self, number: int) -> str:
        """Return the scene of portrait `number`: of two portraits hardly ever the same."""
        random = Random(number)
        return caption(sample_scene(random), random, keep=1.0)

    def person(self, number: int) -> int:
        """Return which of the references portrait `number` shows."""
        return number % len(self.references)

    @property
    def window(self) -> Window:
        """Return what is counted of a round of the saturated service."""
        return Window(callers=self.concurrency, images=self.images_a_round)
