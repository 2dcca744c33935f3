"""How the rows of a tick are shared out among lanes, and what becomes of the others when one fails."""

from __future__ import annotations

from typing import Any

import pytest

from engine.backends.compiled.openvino_graph import _wait
from engine.backends.compiled.openvino_runtime import OpenVINORuntime, OpenVINOSettings
from engine.backends.compiled.runtime import Shape


def unet(rows: int | None) -> dict[str, Shape]:
    return {"sample": (rows, 4, 8, 8), "kv_text": (rows, 77, 32), "kv_ip": (rows, 4, 32)}


@pytest.mark.parametrize(
    ("most", "rows", "lanes"),
    [(1, 8, 1), (2, 8, 2), (2, 2, 2), (2, 1, 1), (2, 3, 1), (3, 8, 2), (8, 4, 4), (16, 16, 16), (2, None, 1)],
)
def test_rows_are_shared_out_evenly(most: int, rows: int | None, lanes: int) -> None:
    runtime = OpenVINORuntime(OpenVINOSettings(threads=most, lanes=most))
    assert runtime._lanes(unet(rows)) == lanes


def test_other_graphs_have_all_threads_at_once() -> None:
    runtime = OpenVINORuntime(OpenVINOSettings(threads=4, lanes=4))
    assert runtime._lanes({"latents": (4, 4, 8, 8)}) == 1


class FakeLane:
    def __init__(self, error: Exception | None = None) -> None:
        self.request = self
        self.error = error
        self.waited = False

    def wait(self) -> None:
        self.waited = True
        if self.error is not None:
            raise self.error


def test_a_failure_is_told_when_no_lane_runs_any_more() -> None:
    lanes: list[Any] = [
        FakeLane(),
        FakeLane(RuntimeError("first")),
        FakeLane(RuntimeError("second")),
        FakeLane(),
    ]
    with pytest.raises(RuntimeError, match="first"):
        _wait(lanes)
    assert all(lane.waited for lane in lanes)
