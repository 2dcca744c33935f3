"""What warm-up measured is kept beside the engine, and used again only for the same engine on the same machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from engine.loop.calibrations import KeepsCalibration, calibrate_or_recall
from engine.loop.warmup import Calibration
from tests.engine.fakes import BUCKETS, FakeBackend, VirtualClock


@dataclass
class KeepingBackend(FakeBackend):
    calibration_file: Path | None = None
    calibration_key: dict[str, str] = field(default_factory=dict)


def start(backend: FakeBackend, buckets: tuple[int, ...] = BUCKETS) -> Calibration:
    return calibrate_or_recall(
        backend, buckets, backend.clock, decode_batch=4, patience_ticks=2, reference_batch=4
    )


def keeping(path: Path, **key: str) -> KeepingBackend:
    return KeepingBackend(
        clock=VirtualClock(), calibration_file=path, calibration_key={"engine": "a", "driver": "13.0", **key}
    )


def test_a_restart_measures_nothing_but_runs_every_bucket(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    first = keeping(path)
    assert isinstance(first, KeepsCalibration) and not isinstance(
        FakeBackend(clock=VirtualClock()), KeepsCalibration
    )
    measured = start(first)
    second = keeping(path)
    recalled = start(second)
    assert recalled.tick_seconds == measured.tick_seconds and recalled.shape == measured.shape
    assert recalled.decode_plan == measured.decode_plan
    assert torch.equal(recalled.preview.weight, measured.preview.weight)
    assert torch.equal(recalled.preview.bias, measured.preview.bias)
    assert [bucket for bucket, _ in second.ticks()] == list(BUCKETS)
    assert second.count("decode") == len(measured.decode_seconds)
    assert second.count("images") == len(second.facts.adapters)
    assert first.count("tick") > second.count("tick")
    assert second.rows == {}, "warm-up gives its slots back"


def test_another_engine_driver_or_bucket_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    start(keeping(path))
    for backend, buckets in ((keeping(path, engine="b"), BUCKETS), (keeping(path, driver="13.1"), BUCKETS)):
        start(backend, buckets)
        assert backend.count("tick") > len(buckets)
    fewer = keeping(path, driver="13.1")
    start(fewer, (1, 2))
    assert fewer.count("tick") > 2


def test_a_broken_file_is_measured_again_and_a_full_disk_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text('{"format": 1, "tick', encoding="utf-8")
    again = keeping(path)
    start(again)
    assert again.count("tick") > len(BUCKETS)
    repaired = keeping(path)
    start(repaired)
    assert repaired.count("tick") == len(BUCKETS)
    nowhere = keeping(tmp_path / "no folder" / "calibration.json")
    assert start(nowhere).tick_seconds
    kept_nowhere = KeepingBackend(clock=VirtualClock())
    assert start(kept_nowhere).tick_seconds
    assert sorted(path.name for path in tmp_path.iterdir()) == ["calibration.json"]
