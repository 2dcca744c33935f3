"""The command: one run, a sweep with its plot, a validation, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from loadtests.simulator.command import main
from loadtests.simulator.planned import PlannedRequest
from loadtests.simulator.validation import Figures, RealRun, validate

from .builders import STAGED, request, run

SMALL = ("--people", "1000", "--seconds", "5", "--warmup", "1")


@pytest.fixture
def machine(tmp_path: Path) -> str:
    path = tmp_path / "machine.json"
    path.write_bytes(msgspec.json.encode(STAGED))
    return str(path)


def test_one_run_prints_its_figures_and_writes_json(
    machine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out" / "run.json"
    assert main(["--machine", machine, "--rate", "10", "--output", str(out), *SMALL]) == 0
    assert "p95 latency" in capsys.readouterr().out
    written = json.loads(out.read_text())
    assert written["study"]["people"] == 1000
    summary = written["summary"]
    assert summary["outcomes"]["finished"] == summary["arrived"] == pytest.approx(50, abs=25)
    # Nothing was shared, so there is no latency of it to tell: null, not NaN.
    assert "NaN" not in out.read_text()


def test_a_sweep_gives_a_table_and_the_same_plot_every_time(
    machine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plots = []
    for name in ("a.svg", "b.svg"):
        options = ["--sweep", "replicas", "1,2", "--series", "router", "hash,round-robin", "--rate", "5"]
        shown = ["--show", "hit_rate,latency.p95", "--plot", str(tmp_path / name)]
        assert main(["--machine", machine, *options, *shown, *SMALL]) == 0
        plots.append((tmp_path / name).read_bytes())
    rows = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith(("| hash", "| round-robin"))
    ]
    assert len(rows) == 8
    assert plots[0] == plots[1] and plots[0].startswith(b"<?xml")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (["--replicas", "0"], "replicas"),
        (["--replicas", "many"], "replicas"),
        (["--replicas", "2.7"], "replicas: '2.7'"),
        (["--replicas", "inf"], "replicas: 'inf'"),
        (["--steps", "10,x"], "steps: 'x'"),
        (["--steps", "10,0"], "steps"),
        (["--router", "dns"], "router"),
        (["--zipf", "9"], "zipf"),
        (["--rate", "0"], "rate"),
        (["--guided", "2"], "guided"),
        (["--show", "beauty"], "show"),
        (["--sweep", "weather", "1,2"], "sweep"),
        (["--plot", "x.svg"], "sweep"),
        (["--sweep", "router", "hash,round-robin", "--plot", "x.svg"], "plot: router 'hash'"),
        (["--sweep", "steps", "10,x"], "steps: 'x'"),
        (["--sweep", "rate", "1", "--series", "replicas", "1,two"], "replicas: 'two'"),
        (["--machine", "nowhere"], "machine"),
        (["--validate", "nowhere.json"], "validate"),
    ],
)
def test_wrong_options_are_named(options: list[str], field: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, *options]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"simulate: {field}")
    assert not said.out, "nothing is simulated before all options are known to be right"


def _real(slower: float) -> RealRun:
    """Return a run as a machine like STAGED would have given it, so much slower."""
    asked = [PlannedRequest(at=0.1 * n, steps=5, person=n % 3, guided=n % 2 == 0) for n in range(40)]
    calls = run([planned.request(n) for n, planned in enumerate(asked)]).calls
    ended = max(call.ended for call in calls if call.ended is not None)
    latencies = sorted(call.latency for call in calls)
    return RealRun(
        name="fleet",
        requests=tuple(asked),
        real=Figures(
            throughput=40 / ended / slower,
            p50=(latencies[19] + latencies[20]) / 2 * slower,
            p95=(0.95 * latencies[37] + 0.05 * latencies[38]) * slower,
            p99=latencies[39] * slower,
        ),
    )


def test_the_same_machine_is_within_tolerance_and_a_slower_one_is_not(
    machine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for slower, status in ((1.0, 0), (1.2, 1)):
        path = tmp_path / f"{slower}.json"
        path.write_bytes(msgspec.json.encode(_real(slower)))
        assert main(["--machine", machine, "--validate", str(path)]) == status
    assert "NO" in capsys.readouterr().out
    same = validate(_real(1.0), STAGED)
    assert same.off("throughput") == pytest.approx(0, abs=1e-9)
    assert same.off("p95") == pytest.approx(0, abs=0.02)


def test_a_closed_loop_and_known_references_are_repeated() -> None:
    asked = tuple(PlannedRequest(at=0.0, steps=5, person=1) for _ in range(6))
    figures = Figures(throughput=1.0, p50=1.0, p95=1.0, p99=1.0)
    closed = validate(RealRun(name="closed", requests=asked, real=figures, callers=1, known=(1,)), STAGED)
    alone = run([request(0, 0.0, steps=5, rows=2)]).calls[0].latency
    assert (closed.simulated.p50, closed.simulated.p99) == (pytest.approx(alone), pytest.approx(alone))
    assert closed.simulated.throughput == pytest.approx(1 / alone)
    unknown = validate(RealRun(name="closed", requests=asked, real=figures, callers=1), STAGED)
    assert unknown.simulated.p99 > closed.simulated.p99
