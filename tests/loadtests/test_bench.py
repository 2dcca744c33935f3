"""The sides of the benchmark: when they start, and which of their images are counted."""

from __future__ import annotations

import argparse
import asyncio
from datetime import datetime, timedelta
from pathlib import Path

import pytest

import loadtests.provenance
from loadtests.bench.ceiling import engine_options
from loadtests.bench.limit import BareLoop
from loadtests.bench.pictures import in_turns
from loadtests.bench.service import closed_loop
from loadtests.bench.settings import BenchSettings
from loadtests.bench.stages import Stopwatch, table
from loadtests.bench.window import Window
from loadtests.bench.worker import Worker
from loadtests.provenance import provenance

SIDE = """
from pathlib import Path
from loadtests.bench.worker import serve
Path({calibrated!r}).touch()
serve(lambda request: {{"got": request}})
"""


def test_a_side_has_calibrated_itself_before_the_next_one_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path.cwd()}")
    calibrated = tmp_path / "calibrated"
    (tmp_path / "a_side.py").write_text(SIDE.format(calibrated=str(calibrated)))
    with Worker("a_side") as side:
        assert calibrated.exists()
        assert side.ask(images=3) == {"got": {"images": 3}}


def test_a_side_that_cannot_start_is_told() -> None:
    with pytest.raises(RuntimeError, match="ended with status 1"):
        Worker("loadtests.no_such_side")


def test_counted_answers_are_those_that_came_while_everybody_waited() -> None:
    window = Window(callers=2, images=3)
    ends = [1.0, 2.0, 4.0, 6.0, 9.0, 20.0, 30.0]
    assert len(ends) == window.asked
    assert window.counted(ends) == [4.0, 6.0, 9.0]
    assert window.seconds(ends) == 7.0


class Engine:
    """Makes whatever is asked for in batches of up to four, a second each."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waiting: list[asyncio.Future[float]] = []
        self.in_flight: list[int] = []

    async def generate(self, seed: int) -> float:
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        return await future

    async def run(self) -> None:
        while True:
            for _ in range(5):
                await asyncio.sleep(0)  # who was answered asks again
            self.in_flight.append(len(self.waiting))
            self.now += 1.0
            batch, self.waiting = self.waiting[:4], self.waiting[4:]
            for future in batch:
                future.set_result(float(len(batch)))


async def test_the_service_is_measured_while_all_callers_ask() -> None:
    settings = BenchSettings(images_a_round=12, concurrency=6)
    engine = Engine()
    running = asyncio.create_task(engine.run())
    seconds, rows = await closed_loop(engine.generate, settings, 0, clock=lambda: engine.now)
    running.cancel()
    assert 12 / seconds == pytest.approx(4.0), "four images a second, whatever the ends of the loop do"
    assert rows == 4.0
    assert engine.in_flight[:5] == [6] * 5


class Loop(BareLoop):
    """A bare loop whose batches take a second each, the first one ten."""

    def __init__(self, best_bucket: int) -> None:
        self.best_bucket = best_bucket

    def run(self, images: int, in_flight: int | None = None, *, size: tuple[int, int] | None = None) -> float:
        self._ends = [10.0 + number // self.fill for number in range(images)]
        return self._ends[-1]


@pytest.mark.parametrize(("best_bucket", "rate"), [(1, 1.0), (8, 4.0), (10, 5.0)])
def test_the_bare_loop_is_measured_in_whole_batches_after_the_first(best_bucket: int, rate: float) -> None:
    assert Loop(best_bucket).rate(32) == rate


def test_loop_and_service_get_the_same_engine() -> None:
    given = argparse.Namespace(threads=3, backend="openvino", dtype="float32", lanes=2, buckets=[2, 16])
    loop, server = engine_options(given)
    assert loop == [
        "--threads", "3", "--backend", "openvino", "--dtype", "float32", "--lanes", "2", "--buckets", "2", "16",
    ]  # fmt: skip
    assert server[-4:] == ["--engine-lanes", "2", "--engine-buckets", "2,16"]
    given.buckets = None
    assert "--buckets" not in engine_options(given)[0]


def test_figures_say_when_and_where_they_were_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    known = provenance()
    assert datetime.fromisoformat(str(known["date"])).utcoffset() == timedelta(0)
    assert known["cpu"] and int(known["cores"]) >= 1
    assert {"torch", "openvino", "grpcio"} <= known.keys()
    monkeypatch.setattr(loadtests.provenance, "_ROOT", Path("/"))
    monkeypatch.setattr(loadtests.provenance, "PACKAGES", ("no-such-package",))
    assert provenance().keys() == {"date", "cpu", "cores"}


def test_portraits_differ_in_scene_and_person_and_are_the_same_again() -> None:
    settings = BenchSettings()
    prompts = [settings.prompt(number) for number in range(100)]
    assert len(set(prompts)) == 100
    assert prompts == [BenchSettings().prompt(number) for number in range(100)]
    assert {settings.person(number) for number in range(8)} == set(range(len(settings.references)))


def test_a_stage_counts_what_is_spent_in_it_and_in_none_that_it_calls() -> None:
    now = 0.0

    def take(seconds: float) -> None:
        nonlocal now
        now += seconds

    stopwatch = Stopwatch(clock=lambda: now)
    inner = stopwatch.timed("openvino", lambda: take(3.0))

    def call() -> None:
        take(1.0)
        inner()
        take(0.5)

    outer = stopwatch.timed("unet", call)
    take(100.0)
    stopwatch.reset()
    take(2.0)
    outer()
    outer()
    take(0.25)
    spent = stopwatch.stop()
    assert spent == {(): 2.25, ("unet",): 3.0, ("unet", "openvino"): 6.0}
    assert table([{stage: seconds / 1000 for stage, seconds in spent.items()}])[2:4] == [
        "| UNet, in OpenVINO | 6.00 (6.00 to 6.00) | 53.3% |",
        "| UNet: rows into their batch, inputs and outputs | 3.00 (3.00 to 3.00) | 26.7% |",
    ]


def test_a_call_that_raises_ends_its_stage() -> None:
    stopwatch = Stopwatch(clock=iter([0.0, 1.0, 3.0, 6.0]).__next__)

    def call() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stopwatch.timed("unet", call)()
    assert stopwatch.stop() == {(): 1.0 + 3.0, ("unet",): 2.0}


def test_stages_without_a_name_or_without_the_library_are_told() -> None:
    with pytest.raises(KeyError, match="other"):
        table([{("other",): 1.0}])
    with pytest.raises(ValueError, match="not seen"):
        table([{("unet",): 1.0}])


def test_each_round_begins_with_another_way() -> None:
    assert [in_turns("abc", number)[0] for number in range(4)] == ["a", "b", "c", "a"]
    assert in_turns("abc", 1) == ["b", "c", "a"]
