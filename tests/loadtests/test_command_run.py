"""The commands `run` and `k6`, from the command line, against a target and a server that are stand-ins."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loadtests.__main__ import main
from loadtests.runner import command_k6, command_run
from loadtests.runner.report import Report, read_report
from loadtests.runner.request import PlannedRequest
from loadtests.runner.target import Outcome, Status
from tests.loadtests.building import Queueing
from tools.local_server import LocalServer

SCENARIO = """
name = "tiny"
about = "A few requests."
seconds = 0.1
[[streams]]
name = "callers"
arrivals = { kind = "poisson", per_second = 100 }
mix = { referenced = 0 }
"""


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    path = tmp_path / "tiny.toml"
    path.write_text(SCENARIO)
    return str(path)


class Answering(Queueing):
    """Lets every request come to the same."""

    def __init__(self, status: Status) -> None:
        super().__init__(0.0)
        self.status = status

    async def call(self, request: PlannedRequest) -> Outcome:
        return Outcome(status=self.status, reason="A_REASON")


@pytest.mark.parametrize(
    ("status", "exit_status"),
    [
        (Status.OK, 0),
        (Status.REFUSED, 0),
        (Status.EXPIRED, 0),
        (Status.FAILED, 1),
        (Status.UNFINISHED, 1),
    ],
)
def test_a_check_without_expectations_still_fails_with_the_requests(
    tmp_path: Path,
    tiny: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    status: Status,
    exit_status: int,
) -> None:
    def opened(*_: object, **__: object) -> contextlib.nullcontext[Answering]:
        return contextlib.nullcontext(Answering(status))

    monkeypatch.setattr(command_run, "LimnerTarget", opened)
    speed = ["--capacity", "10", "--unloaded", "0.5"]
    arguments = ["run", tiny, "--target", "nowhere", *speed, "--out", str(tmp_path)]
    assert main([*arguments, "--check"]) == exit_status
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "no request failed" in printed
    assert "no request was left unfinished" in printed
    assert ("FAILS" in printed) == bool(exit_status)
    assert "no request failed" in (tmp_path / "tiny.html").read_text()
    assert len(read_report(tmp_path / "tiny.json").judgements) == 2


class Server:
    """Stands in for `local_server`; tells whether it was started."""

    def __init__(self, problem: str = "") -> None:
        self.problem = problem
        self.started = False

    @contextlib.contextmanager
    def __call__(self, *_: object, **__: object) -> Iterator[LocalServer]:
        self.started = True
        if self.problem:
            raise RuntimeError(self.problem)
        yield LocalServer(target="nowhere", metrics_url="", pid=1, bound_seconds=0.0, ready_seconds=0.0)


@pytest.mark.parametrize("command", ["run", "k6"])
@pytest.mark.parametrize(
    ("arguments", "problem"),
    [(["nosuch"], "is none of"), (["steady", "--capacity", "1"], "go together")],
)
def test_wrong_input_is_refused_before_a_server_is_started(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    arguments: list[str],
    problem: str,
) -> None:
    server = Server()
    monkeypatch.setattr(command_run, "local_server", server)
    monkeypatch.setattr(command_k6, "binary", lambda: None)
    assert main([command, *arguments, "--serve", "--out", str(tmp_path)]) == 2
    assert problem in capsys.readouterr().err
    assert not server.started


def test_only_a_server_that_does_not_start_is_a_fault_of_the_target(
    tmp_path: Path, tiny: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def failing(*_: Any) -> Report:
        raise RuntimeError("a fault of ours")

    arguments = ["run", tiny, "--serve", "--out", str(tmp_path)]
    monkeypatch.setattr(command_run, "local_server", Server("the server ended"))
    assert main(arguments) == 2
    assert "the server ended" in capsys.readouterr().err
    monkeypatch.setattr(command_run, "local_server", Server())
    monkeypatch.setattr(command_run, "load", failing)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        main(arguments)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--rounds", "0"], "0 is not a number from 1 on"),
        (["--check"], "unrecognized arguments: --check"),
        (["--metrics", "http://nowhere"], "unrecognized arguments: --metrics"),
        (["--pid", "1"], "unrecognized arguments: --pid"),
    ],
)
def test_k6_takes_only_what_it_uses(
    capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    with pytest.raises(SystemExit):
        main(["k6", "--target", "nowhere", *arguments])
    assert problem in capsys.readouterr().err
