"""The life of an engine as its link sees it: starting, dying, being replaced, and what becomes of its work."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import numpy as np
import pytest

from engine.protocol.messages import Finished, Step
from server.engine_link.connection import Connection
from server.engine_link.supervisor import CANNOT_START
from server.errors import (
    EngineUnavailableError,
    PoisonError,
)
from tests.server.fake_engine import FakeLauncher, Script, ready_message
from tests.server.linked import images, linked, submit


async def test_a_dead_engine_is_replaced_and_what_was_in_flight_is_replayed() -> None:
    async with linked(Script(hold_on="a")) as at:
        jobs = [asyncio.create_task(at.job(submit(f"job {number}", "a sailor"))) for number in range(5)]
        await at.script.until(lambda: len(at.script.held) == 5)
        at.launcher.engines[0].kill()
        await at.script.until(lambda: len(at.script.submitted) == 10)
        at.script.release.set()
        assert [images(await job) for job in jobs] == [[(0, 10)]] * 5
        assert at.readiness == [True, False, True]
        assert at.script.lives == 2
        assert "engine_died" in [line["event"] for line in at.logs]


async def test_what_comes_while_the_engine_is_away_waits_for_it() -> None:
    async with linked(Script(loads=True)) as at:
        at.script.loads = False
        at.launcher.engines[0].kill()
        await at.script.until(lambda: at.script.lives >= 3)
        job = asyncio.create_task(at.job(submit("a")))
        await asyncio.sleep(0)
        at.script.loads = True
        assert images(await job) == [(0, 10)]


async def test_delivered_images_are_not_asked_for_again() -> None:
    async with linked(Script(stop_after_images=2)) as at:
        news = await at.job(submit("a", images=4))
        assert images(news) == [(0, 10), (1, 11), (2, 12), (3, 13)]
        assert [message.seeds for message in at.script.submitted] == [(10, 11, 12, 13), (12, 13)]
        assert [message.step for message in news if isinstance(message, Step)] == [1, 2, 3]


async def test_a_death_between_the_last_image_and_the_end() -> None:
    async with linked(Script(stop_after_images=2)) as at:
        news = await at.job(submit("a", images=2))
        assert images(news) == [(0, 10), (1, 11)]
        assert isinstance(news[-1], Finished)


async def test_who_is_in_flight_alone_in_two_deaths_fails() -> None:
    async with linked() as at:
        with pytest.raises(PoisonError):
            await at.job(submit("a", "DIE"))
        assert at.script.lives == 2
        await at.until_ready()
        assert images(await at.job(submit("b"))) == [(0, 10)]


async def test_poison_in_a_crowd_fails_alone() -> None:
    async with linked(Script(hold_on="sailor")) as at:
        jobs = [asyncio.create_task(at.job(submit(f"job {number}"))) for number in range(6)]
        await at.script.until(lambda: len(at.script.held) == 6)
        poison = asyncio.create_task(at.job(submit("poison", "DIE")))
        # Suspects are sent one at a time; the innocent ones must be able to end.
        asyncio.get_running_loop().call_later(0.05, at.script.release.set)
        with pytest.raises(PoisonError):
            await poison
        assert [images(await job) for job in jobs] == [[(0, 10)]] * 6
        assert at.script.lives <= 4
        assert at.link.in_flight == 0


async def test_an_encode_is_replayed_as_well() -> None:
    async with linked(Script(hold_encodes=True)) as at:
        encode = asyncio.create_task(at.link.encode(np.full((32, 32, 3), 9, np.uint8)))
        await asyncio.sleep(0)
        at.launcher.engines[0].kill()
        await at.script.until(lambda: at.script.lives == 2)
        at.script.release.set()
        assert (await encode).tokens.tolist() == np.full((4, 8), 9).tolist()
        assert at.link.in_flight == 0


async def test_a_cancel_while_the_engine_is_away_is_not_replayed() -> None:
    async with linked() as at:
        job = asyncio.create_task(at.job(submit("a", "HOLD")))
        await at.script.until(lambda: "a" in at.script.held)
        at.script.loads = False
        at.launcher.engines[0].kill()
        await at.script.until(lambda: at.script.lives >= 2)
        job.cancel()
        await asyncio.wait([job])
        at.script.loads = True
        at.changed.clear()
        await at.until_ready()
        await at.job(submit("b"))
        assert [message.job_id for message in at.script.submitted] == ["a", "b"]


async def test_an_engine_that_cannot_load_is_tried_again() -> None:
    async with linked(Script(loads=False), wait=False) as at:
        await at.script.until(lambda: at.script.lives >= 3)
        with pytest.raises(EngineUnavailableError):
            at.link.ready()
        assert at.readiness == []
        assert "engine_failed_to_load" in [line["event"] for line in at.logs]
        at.script.loads = True
        await at.until_ready()
        assert images(await at.job(submit("a"))) == [(0, 10)]


async def test_patience_ends() -> None:
    async with linked(patience=0.01) as at:
        job = asyncio.create_task(at.job(submit("a", "HOLD")))
        await at.script.until(lambda: "a" in at.script.held)
        at.script.loads = False
        at.launcher.engines[0].kill()
        with pytest.raises(EngineUnavailableError):
            await job
        with pytest.raises(EngineUnavailableError):
            await at.job(submit("b"))
        at.script.loads = True
        await at.until_ready()
        await at.job(submit("c"))


async def test_an_engine_that_is_not_ready_in_time_is_killed() -> None:
    class Silent(FakeLauncher):
        async def launch(self) -> Any:
            engine = await super().launch()
            if len(self.engines) == 1:
                engine._send = lambda *_: None  # type: ignore[method-assign]
            else:
                at.patiently()
            return engine

    script = Script()
    async with linked(script, wait=False, start_timeout=0.02) as at:
        at.link.engines[0]._supervisor._launcher = silent = Silent(script)
        await at.until_ready()
        assert len(silent.engines) == 2
        (line,) = [line for line in at.logs if line["event"] == "engine_failed_to_load"]
        assert line["why"] == "was not ready in time"


async def test_a_silent_engine_is_replaced() -> None:
    async with linked(stall_timeout=0.05) as at:
        job = asyncio.create_task(at.job(submit("a", "HOLD")))
        await at.script.until(lambda: len(at.script.submitted) == 1)
        at.patiently()  # from the next engine on: this one's time runs
        await at.script.until(lambda: len(at.script.submitted) == 2)
        at.script.release.set()
        await job
        assert "was silent for too long" in [line.get("why") for line in at.logs]


async def test_an_engine_that_never_says_a_word_once_it_is_ready_is_replaced() -> None:
    async with linked(stall_timeout=0.02) as at:
        await at.script.until(lambda: at.script.lives == 2)
        assert "was silent for too long" in [line.get("why") for line in at.logs]


async def test_an_engine_that_breaks_the_protocol_is_replaced() -> None:
    async with linked() as at:
        at.launcher.engines[0]._writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await at.script.until(lambda: at.script.lives == 2)
        assert any("broke the protocol" in str(line.get("why")) for line in at.logs)


async def test_a_bug_of_ours_in_hearing_an_engine_costs_that_engine_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        monkeypatch.undo()
        raise IndexError("ours")

    async with linked() as at:
        monkeypatch.setattr(at.link.engines[0].observer, "tick", broken)
        assert images(await at.job(submit("a"))) == [(0, 10)]
        assert at.script.lives == 2
        (line,) = [line for line in at.logs if line["event"] == "engine_link_failed"]
        assert isinstance(line["exc_info"], IndexError)


async def test_a_connection_that_cannot_be_opened_costs_that_engine_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(*_: object) -> Connection:
        monkeypatch.undo()
        raise ValueError("ours")

    monkeypatch.setattr(Connection, "open", broken)
    async with linked() as at:
        assert len(at.launcher.engines) == 2
        assert images(await at.job(submit("a"))) == [(0, 10)]


async def test_a_bug_of_ours_when_an_engine_is_lost_or_launched_ends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        monkeypatch.undo()
        raise RuntimeError("ours")

    async with linked() as at:
        monkeypatch.setattr(at.link.engines[0].observer, "engine_lost", broken)
        at.launcher.engines[0].kill()
        await at.script.until(lambda: at.script.lives == 2)
        assert "supervision_failed" in [line["event"] for line in at.logs]
        monkeypatch.setattr(at.launcher, "launch", broken)
        at.launcher.engines[1].kill()
        await at.script.until(lambda: at.script.lives == 3)
        assert "engine_not_started" in [line["event"] for line in at.logs]
        await at.until_ready()
        assert images(await at.job(submit("a"))) == [(0, 10)]


async def test_an_engine_that_cannot_start_at_all_is_not_tried_again() -> None:
    async with linked(Script(loads=False, exit_status=CANNOT_START), wait=False) as at:
        await at.link.cannot_start.wait()
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert at.script.lives == 1
        (line,) = [line for line in at.logs if line["event"] == "engine_cannot_start"]
        assert line["how"] == "exit status 2"


async def test_an_engine_that_was_ready_once_is_tried_again_whatever_it_says() -> None:
    async with linked(Script(exit_status=CANNOT_START)) as at:
        at.script.loads = False
        at.launcher.engines[0].kill()
        await at.script.until(lambda: at.script.lives >= 3)
        at.script.loads = True
        at.changed.clear()
        await at.until_ready()
        assert not at.link.cannot_start.is_set()


async def test_other_weights_after_a_restart_are_told() -> None:
    async with linked() as at:
        changed = msgspec.structs.replace(at.script.ready.model.adapters[0], weights_hash="other")
        at.script.ready = ready_message(weights_hash="other", adapters=(changed,))
        at.launcher.engines[0].kill()
        await at.script.until(lambda: at.script.lives == 2)
        await at.job(submit("a"))
        assert at.link.facts().weights_hash == "other"
        assert "model_changed" in [line["event"] for line in at.logs]
