"""What is taken from the engine's loop, on a loop whose times are known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loadtests.bench.settings import BenchSettings
from loadtests.simulator.errors import SimulationError
from loadtests.simulator.measure import _simulated_rate, _tick_in_the_loop, measure

from .builders import STAGED

DECODE = 0.5


class Loop:
    """A tick takes a tenth of a second a row, twice that at another size; a decode `DECODE` by its area."""

    def __init__(self) -> None:
        self.tick_seconds = {1: 0.6, 2: 1.2, 4: 9.0}
        self.backend = SimpleNamespace(facts=SimpleNamespace(default_width=128, default_height=128))

    def run(self, images: int, in_flight: int, *, size: tuple[int, int]) -> float:
        ticks = images / in_flight * BenchSettings().steps
        area = size[0] * size[1] / 128**2
        return ticks * 0.2 * in_flight * (1 if area == 1 else 2) + images * DECODE * area


def tick(bucket: int, size: tuple[int, int] = (128, 128), each_decode: float = DECODE) -> float:
    loop: Any = Loop()
    return _tick_in_the_loop(loop, BenchSettings(), bucket, size, each_decode)


def test_a_tick_is_what_decodes_leave_at_each_size() -> None:
    assert tick(4) == pytest.approx(0.4)
    assert tick(4, (96, 128)) == pytest.approx(0.8)


def test_an_odd_bucket_is_its_share_of_the_next_even_one() -> None:
    assert tick(1) == pytest.approx(0.1)


def test_decodes_that_met_a_disturbance_make_no_machine() -> None:
    with pytest.raises(SimulationError, match="bucket 2"):
        tick(2, each_decode=50.0)


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SimulationError, match=r"measure: .*machine\.json"):
        measure(tmp_path / "file" / "machine.json")


def test_the_simulated_round_is_of_a_full_engine() -> None:
    few, many = (_simulated_rate(STAGED, BenchSettings(images_a_round=images)) for images in (32, 320))
    assert few == pytest.approx(many, rel=0.05)
