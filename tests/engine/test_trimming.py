from pathlib import Path

import pytest

from engine.loop import trimming
from engine.loop.trimming import IdleTrimmer, give_back


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []
    monkeypatch.setattr(trimming, "trim", lambda: calls.append("trim"))
    return calls


def test_an_idle_engine_trims_once_after_work(given: list[str]) -> None:
    now = [0.0]
    trimmer = IdleTrimmer(lambda: now[0], every=10)
    trimmer.idle()
    now[0] = 60.0
    trimmer.idle()
    assert given == [], "nothing was computed"
    trimmer.worked()
    trimmer.idle()
    trimmer.idle()
    assert given == ["trim"]


def test_pictures_in_close_succession_are_not_trimmed_between(given: list[str]) -> None:
    now = [100.0]
    trimmer = IdleTrimmer(lambda: now[0], every=10)
    for _ in range(40):
        trimmer.worked()
        trimmer.idle()
        now[0] += 0.5
    assert len(given) == 1
    now[0] += 10
    trimmer.idle()
    assert len(given) == 2, "what the last pictures needed is given back later"


def test_giving_back_runs_on_this_machine() -> None:
    give_back()
    assert Path("/proc/self/statm").exists()
