"""What is left of a comparison that breaks off, what its file says, and what its command line says."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest

from loadtests.peers import __main__ as command
from loadtests.peers import rounds
from loadtests.peers.errors import PeerRefusedError
from loadtests.peers.measure import Measured
from loadtests.peers.process import MemoryPeak
from loadtests.peers.results import Results
from loadtests.peers.sides import Started
from loadtests.runner.gallery import Gallery

GALLERY = Gallery(0, size=16)
MEASURED = Measured(
    unloaded=(0.5,),
    saturated=(1.0, 2.0),
    rate=7.25,
    arrivals=(1.0,),
    arrival_seconds=2.0,
    offered_rate=5.8,
    slo_seconds=1.5,
)


class Turns:
    """Stands for the sides and their measurement: the turns go well but for one, which raises."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failing: int, error: BaseException) -> None:
        self.done = 0
        self.files: list[bool] = []
        self._failing = failing
        self._error = error
        monkeypatch.setattr(rounds, "awake", lambda name, pid: MemoryPeak(pid))
        monkeypatch.setattr(rounds, "measure", self.measure)
        monkeypatch.setattr(command, "compare", self.compare)

    async def measure(self, *_: object) -> Measured:
        self.files.append(self.out.is_file())
        self.done += 1
        if self.done == self._failing:
            raise self._error
        return MEASURED

    def compare(self, arguments: argparse.Namespace, results: Results) -> None:
        self.out: Path = arguments.out
        running = {
            report.name: Started(pid=2**22 + 1, seconds=1.0, open=lambda: pytest.fail("opened"))
            for report in results.reports
        }
        rounds.run_rounds(running, GALLERY, arguments.rounds, results)


def run(monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    monkeypatch.setattr(sys, "argv", ["peers", *options])
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    command.main()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError("a bug"), SystemExit(143)])
def test_what_was_measured_outlives_a_round_that_breaks_off(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
) -> None:
    turns = Turns(monkeypatch, failing=4, error=error)
    out = tmp_path / "new" / "peers.json"
    with pytest.raises(type(error)):
        run(monkeypatch, "--sides", "limner", "ray", "--loads", "mixed", "--out", str(out))
    assert turns.files == [False, True, True, True]
    content = json.loads(out.read_text())
    assert {side["name"]: len(side["rounds"]["mixed"]) for side in content["sides"]} == {
        "limner": 1,
        "ray": 2,
    }
    assert [path.name for path in out.parent.iterdir()] == ["peers.json"]
    assert "| ray | 7.25 | 1.00 (1.00 to 1.00) |" in capsys.readouterr().out


def test_a_side_that_fails_leaves_the_others_to_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Turns(monkeypatch, failing=1, error=PeerRefusedError("limner", "answered 500"))
    out = tmp_path / "peers.json"
    run(monkeypatch, "--sides", "limner", "ray", "--loads", "mixed", "--out", str(out))
    limner, ray = json.loads(out.read_text())["sides"]
    assert (limner["failure"], limner["rounds"]) == ("answered 500", {})
    assert len(ray["rounds"]["mixed"]) == 2


def test_a_comparison_that_measured_nothing_leaves_the_last_ones_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Turns(monkeypatch, failing=1, error=KeyboardInterrupt())
    out = tmp_path / "peers.json"
    out.write_text("earlier")
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, "--sides", "limner", "--out", str(out))
    assert out.read_text() == "earlier"
    assert "|" not in capsys.readouterr().out


def test_the_file_says_when_where_and_with_what(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Turns(monkeypatch, failing=0, error=KeyboardInterrupt())
    out = tmp_path / "peers.json"
    run(monkeypatch, "--sides", "limner", "--rounds", "1", "--out", str(out))
    provenance = json.loads(out.read_text())["provenance"]
    assert provenance["date"].endswith("+00:00")
    assert {"cpu", "cores", "torch", "diffusers", "openvino", "grpcio"} <= provenance.keys()


def test_an_unknown_side_is_told_which_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "--sides", "foo")
    assert "side 'foo' is none of limner, limner-lanes" in capsys.readouterr().err
