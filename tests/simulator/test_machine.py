"""Machines: presets, files, what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.config import EngineConfig
from loadtests.simulator.errors import SimulationError
from loadtests.simulator.machine import presets, read_machine

from .builders import SHAPE, STAGED

ROOT = Path(__file__).resolve().parents[2]


def test_presets_say_where_every_figure_comes_from() -> None:
    for machine in presets().values():
        named = {name.strip() for names in machine.sources for name in names.split(",")}
        costs = {name for name in machine.__struct_fields__ if name.endswith(("seconds", "_each", "_bytes"))}
        given = {name for name in costs if getattr(machine, name)}
        assert given | {"ticks"} == named


@pytest.mark.parametrize(
    ("name", "heading"), [("h100-sd15", "SD 1.5 at 512x512:"), ("h100-sdxl", "SDXL at 1024x1024:")]
)
def test_ticks_of_presets_are_those_of_the_page_that_they_name(name: str, heading: str) -> None:
    page = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    (row,) = [
        line
        for line in page.split(heading, 1)[1].splitlines()[:12]
        if line.startswith("| Limner, torch, CUDA graph |")
    ]
    milliseconds = [float(cell) for cell in row.split("|")[2:-1]]
    ticks = presets()[name].ticks[0].seconds
    assert [1000 * ticks[bucket] for bucket in sorted(ticks)] == pytest.approx(milliseconds)


def test_a_measured_machine_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    path.write_bytes(msgspec.json.encode(STAGED))
    assert read_machine(str(path)) == STAGED


def test_an_engines_calibration_is_a_machine(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(
        json.dumps(
            {
                "format": 1,
                "key": {},
                "shape": SHAPE,
                "tick_seconds": {"1": 0.1, "2": 0.15},
                "decode_seconds": {"1": 0.02, "2": 0.03},
                "decode_batch": 2,
                "preview_weight": [[1.0]],
                "preview_bias": [0.0],
            }
        )
    )
    machine = read_machine(str(path))
    assert (machine.shape, machine.buckets) == (SHAPE, (1, 2))
    assert machine.ticks[0].seconds == {1: 0.1, 2: 0.15}
    assert machine.plan(EngineConfig()).batch == 2
    assert machine.policy(EngineConfig()).finish_seconds == pytest.approx(0.015)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("ticks", {"ticks": ()}),
        ("decode_seconds", {"decode_seconds": {2: 0.1}}),
        ("upload_seconds", {"upload_seconds": -1.0}),
        ("encode_batch", {"encode_batch": 0}),
    ],
)
def test_what_is_wrong_with_a_machine_is_named(field: str, change: dict[str, Any]) -> None:
    with pytest.raises(SimulationError, match=field):
        msgspec.structs.replace(STAGED, **change)


def test_an_unknown_machine_is_named(tmp_path: Path) -> None:
    with pytest.raises(SimulationError, match="h100-sd15"):
        read_machine("tpu")
    path = tmp_path / "broken.json"
    path.write_text("{}")
    with pytest.raises(SimulationError, match="broken"):
        read_machine(str(path))
