"""A small scenario against a real server: calibrated, sent, watched, written, drawn."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.__main__ import main
from loadtests.runner.report import read_report
from tools.local_server import LocalServer

SCENARIO = """
name = "tiny"
about = "A few small portraits."
seconds = 3
slo = { unloaded = 20.0 }

[calibration]
alone = 1
concurrency = 4
seconds = 1.5

[[streams]]
name = "known"
arrivals = { kind = "poisson", rate = 0.4 }
[streams.mix]
people = 4
steps = [2]

[[streams]]
name = "new"
arrivals = { kind = "poisson", per_second = 1.0 }
[streams.mix]
newcomers = 1.0
steps = [2]

[[streams]]
name = "batch"
priority = "batch"
arrivals = { kind = "closed", concurrency = 2 }
[streams.mix]
referenced = 0.0
steps = [2]

[[expect]]
about = "everybody is answered"
of = "all.all.throughput"
at_least = 0.1
"""


def test_a_run_from_the_command_line(
    server: LocalServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario = tmp_path / "tiny.toml"
    scenario.write_text(SCENARIO)
    arguments = ["run", str(scenario), "--target", server.target, "--metrics", server.metrics_url]
    out = tmp_path / "out"
    assert main([*arguments, "--pid", str(server.pid), "--out", str(out), "--check"]) == 0
    report = read_report(out / "tiny.json")
    told = report.figures["all"]
    assert told["all"].statuses["ok"] == told["all"].sent == len(report.records)
    assert told["known"].hit_rate == 1.0
    assert told["new"].hit_rate == 0.0
    assert told["batch"].hit_rate is None
    # Those who were known had been encoded before the load.
    encodes = [sample.values.get("encodes", 0.0) for sample in (report.samples[0], report.samples[-1])]
    assert encodes[1] - encodes[0] == told["new"].sent
    # The last of them may be encoded after the last moment that counts.
    assert told["all"].encodes is not None and told["all"].encodes <= told["new"].sent
    assert told["all"].padded_share is not None
    assert 0 < told["all"].latency.p50 < 60 if told["all"].latency.p50 is not None else False
    assert report.calibrated
    # Two steps of the request by itself, and then the closed loop's.
    before, after = [sum(ticks.count for ticks in one.ticks.values()) for one in report.calibration]
    assert after - before > 2 + 2
    first, last = report.samples[0].ticks, report.samples[-1].ticks
    assert all(ticks.count > 0 and ticks.seconds > 0 for ticks in last.values())
    assert sum(ticks.count for ticks in last.values()) > sum(ticks.count for ticks in first.values()) >= after
    assert report.speed.capacity > 0
    assert {"server_memory", "engine_memory", "tree_memory", "rows_useful"} <= set(report.samples[-1].values)
    assert "<svg" in (out / "tiny.html").read_text()
    printed = capsys.readouterr()
    assert "holds: everybody is answered" in printed.out
    assert "calibration" in printed.err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--target", "127.0.0.1:1", "--metrics", "http://127.0.0.1:1/metrics"], "the metrics page"),
        (["--target", "127.0.0.1:1"], "127.0.0.1:1 did not take a reference: UNAVAILABLE"),
        (["--target", "127.0.0.1:1", "--capacity", "1"], "go together"),
        (["--target", "127.0.0.1:1", "--serve-option=--port"], "--serve"),
    ],
)
def test_what_cannot_be_run_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    assert main(["run", "steady", "--out", str(tmp_path), *arguments]) == 2
    assert problem in capsys.readouterr().err
