"""How the rows of a tick are shared out among lanes, and what becomes of the others when one fails."""

from __future__ import annotations

import pytest

from engine.backends.compiled.openvino_graph import _run_together
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


class FakeRequest:
    def __init__(self, start: Exception | None = None, wait: Exception | None = None) -> None:
        self.errors = start, wait
        self.runs = False

    def start_async(self) -> None:
        if self.errors[0] is not None:
            raise self.errors[0]
        self.runs = True

    def wait(self) -> None:
        self.runs = False
        if self.errors[1] is not None:
            raise self.errors[1]


@pytest.mark.parametrize(
    "requests",
    [
        [FakeRequest(), FakeRequest(wait=RuntimeError("first")), FakeRequest(wait=RuntimeError("second"))],
        [FakeRequest(), FakeRequest(start=RuntimeError("first")), FakeRequest()],
    ],
    ids=["while it ran", "at its start"],
)
def test_a_failure_is_told_when_no_lane_runs_any_more(requests: list[FakeRequest]) -> None:
    with pytest.raises(RuntimeError, match="first"):
        _run_together(requests)
    assert not any(request.runs for request in requests)
