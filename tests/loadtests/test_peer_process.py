"""Peers that do not come up, and process trees that go down whole."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

from loadtests.peers import environments, sides
from loadtests.peers.environments import environment, requirements_digest
from loadtests.peers.errors import PeerNotInstalledError, PeerNotStartedError
from loadtests.peers.people import PEOPLE, write_people
from loadtests.peers.process import MemoryPeak, awake, pause, resume, running, tree
from loadtests.peers.sides import PEERS, Peer, StartSettings, parse_side, start
from loadtests.runner.gallery import Gallery
from tests.loadtests.building import ASK

GALLERY = Gallery(0, size=16)


def settings(cache: Path) -> StartSettings:
    return StartSettings(threads=1, max_batch=2, batch_seconds=0.01, cache=cache, people=cache)


def test_a_peer_that_ends_is_told_with_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sides, "environment", lambda *_: Path(sys.executable))
    monkeypatch.setitem(PEERS, "ray", Peer(module="nothing_here", requirements="ray"))
    with (
        pytest.raises(PeerNotStartedError, match="No module named") as raised,
        start(parse_side("ray"), settings(tmp_path), GALLERY, ASK),
    ):
        pass
    assert raised.value.reason == "ended with status 1"


def test_a_peer_that_never_answers_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sides, "environment", lambda *_: Path(sys.executable))
    monkeypatch.setattr(sides, "START_SECONDS", 0.3)
    with (
        pytest.raises(PeerNotStartedError, match=r"gave no picture within 0 s; gave no answer"),
        start(parse_side("diffusers"), settings(tmp_path), GALLERY, ASK),
    ):
        pass


def test_a_peer_with_a_page_of_its_health_is_not_asked_before_that_is_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sides, "environment", lambda *_: Path(sys.executable))
    monkeypatch.setattr(sides, "START_SECONDS", 0.3)
    monkeypatch.setitem(PEERS, "diffusers", replace(PEERS["diffusers"], health="health"))
    with (
        pytest.raises(PeerNotStartedError, match=r"gave no picture within 0 s; is not ready: .*refused"),
        start(parse_side("diffusers"), settings(tmp_path), GALLERY, ASK),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("litserve", {"--threads": "4", "--max-batch": "18", "--dtype": "float32"}),
        ("litserve-workers", {"--threads": "1", "--max-batch": "4", "--workers": "4", "--dtype": "float32"}),
    ],
)
def test_workers_part_threads_and_a_batch(tmp_path: Path, name: str, told: dict[str, str]) -> None:
    four = replace(settings(tmp_path), threads=4, max_batch=18)
    arguments = sides._arguments(parse_side(f"{name}:float32"), four, 1)
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert {key: options[key] for key in options if key in {*told, "--workers"}} == told


def test_an_environment_that_pip_cannot_make_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)
    (tmp_path / "torch.txt").write_text("")
    (tmp_path / "bad.txt").write_text("what is this\n")
    with pytest.raises(PeerNotInstalledError, match="Invalid requirement") as raised:
        environment("bad", tmp_path / "venvs")
    assert "cannot be installed" in raised.value.reason


def test_an_environment_is_made_anew_when_its_requirements_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)
    (tmp_path / "torch.txt").write_text("a")
    (tmp_path / "one.txt").write_text("b")
    before = requirements_digest("one")
    stamp = tmp_path / "venvs" / "one" / ".installed"
    stamp.parent.mkdir(parents=True)
    stamp.write_text(before)
    assert environment("one", tmp_path / "venvs") == stamp.parent / "bin" / "python"
    (tmp_path / "torch.txt").write_text("c")
    assert requirements_digest("one") != before


def test_every_peer_has_pinned_requirements() -> None:
    for peer in PEERS.values():
        lines = (environments.REQUIREMENTS / f"{peer.requirements}.txt").read_text().splitlines()
        assert lines[0] == "-r torch.txt"
        assert all("==" in line for line in lines[1:])


def test_children_go_with_their_parent(tmp_path: Path) -> None:
    child = "import time; time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]).wait()"
    with running([sys.executable, "-c", parent], tmp_path / "log", {}) as process:
        end = time.monotonic() + 20
        while len(family := tree(process.pid)) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        assert len(family) == 2
        with MemoryPeak(process.pid) as peak:
            pass
        assert peak.bytes > 1_000_000
    assert not [
        member for member in family if member.is_running() and member.status() != psutil.STATUS_ZOMBIE
    ]


def test_a_paused_tree_takes_no_time_and_goes_on_when_it_is_awake(tmp_path: Path) -> None:
    child = "while True: pass"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]).wait()"

    def spent() -> float:
        return sum(sum(member.cpu_times()[:2]) for member in tree(process.pid))

    with running([sys.executable, "-c", parent], tmp_path / "log", {}) as process:
        end = time.monotonic() + 20
        while len(tree(process.pid)) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        try:
            pause("busy", process.pid)
            family = tree(process.pid)
            assert [member.status() for member in family] == [psutil.STATUS_STOPPED] * 2
            before = spent()
            time.sleep(0.3)
            assert spent() == before
            with awake("busy", process.pid):
                assert spent() > before
            assert [member.status() for member in family] == [psutil.STATUS_STOPPED] * 2
        finally:
            resume(process.pid)


def test_limners_engine_is_not_replaced_after_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def refused(*options: str, log: Path) -> NoReturn:
        asked.extend(options)
        raise RuntimeError("no server")

    monkeypatch.setattr(sides, "local_server", refused)
    with (
        pytest.raises(PeerNotStartedError, match="no server"),
        start(parse_side("limner"), settings(tmp_path), GALLERY, ASK),
    ):
        pass
    stall = asked.index("--engine-stall-timeout-seconds")
    assert asked[stall + 1] == "0"


def test_peers_are_shown_the_pictures_that_limner_is_shown(tmp_path: Path) -> None:
    write_people(GALLERY, tmp_path / "people")
    assert sorted(path.name for path in (tmp_path / "people").iterdir()) == [
        f"{n}.png" for n in range(PEOPLE)
    ]
    assert (tmp_path / "people" / "3.png").read_bytes() == GALLERY.picture(3).data
