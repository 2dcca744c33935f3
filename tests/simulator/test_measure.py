"""What is taken from the engine's loop, on a loop whose times are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loadtests.bench.settings import BenchSettings
from loadtests.simulator.errors import SimulationError
from loadtests.simulator.measure import ImageCosts, _simulated_rate, _tick_in_the_loop, measure

from .builders import STAGED

IMAGE = ImageCosts(decode=0.5, prompt_call=0.3, prompt=0.02, place=0.01)


class Loop:
    """A tick takes a tenth of a second a row, twice that at another size; images besides what `IMAGE` says.

    Those in flight begin together, and only the text that calls of the encoder have in common is shared.
    """

    def __init__(self) -> None:
        self.tick_seconds = {1: 0.6, 2: 1.2, 4: 9.0}
        self.backend = SimpleNamespace(facts=SimpleNamespace(default_width=128, default_height=128))

    def run(self, images: int, in_flight: int, *, size: tuple[int, int]) -> float:
        ticks = images / in_flight * BenchSettings().steps
        area = size[0] * size[1] / 128**2
        return ticks * 0.2 * in_flight * (1 if area == 1 else 2) + (
            images * (0.5 * area + 0.02 + 2 * 0.01) + images / in_flight * 0.3
        )


def tick(bucket: int, size: tuple[int, int] = (128, 128), image: ImageCosts = IMAGE) -> float:
    loop: Any = Loop()
    return _tick_in_the_loop(loop, BenchSettings(), bucket, size, image)


def test_a_tick_is_what_all_else_leaves_at_each_size() -> None:
    assert tick(4) == pytest.approx(0.4)
    assert tick(4, (96, 128)) == pytest.approx(0.8)


def test_an_odd_bucket_is_its_share_of_the_next_even_one() -> None:
    assert tick(1) == pytest.approx(0.1)


@pytest.mark.parametrize("stage", ["decode", "prompt_call", "prompt", "place"])
def test_stages_that_met_a_disturbance_make_no_machine(stage: str) -> None:
    with pytest.raises(SimulationError, match="bucket 2"):
        tick(2, image=replace(IMAGE, **{stage: 50.0}))


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SimulationError, match=r"measure: .*machine\.json"):
        measure(tmp_path / "file" / "machine.json")


def test_the_simulated_round_is_of_a_full_engine() -> None:
    few, many = (_simulated_rate(STAGED, BenchSettings(images_a_round=images)) for images in (32, 320))
    assert few == pytest.approx(many, rel=0.05)
