from __future__ import annotations

from dataclasses import dataclass

from engine.protocol.framing import Frame
from engine.protocol.messages import Message, Shutdown
from server.engine_link.backoff import Backoff
from server.engine_link.ledger import Ledger
from server.engine_link.work import Recipient
from server.errors import LimnerError


@dataclass
class Work:
    id: str
    sent_to: Recipient | None = None
    deaths: int = 0
    effort: float = 1.0

    def died(self) -> None:
        self.deaths += 1
        self.sent_to = None

    def frame(self, now: float) -> Frame:
        return Frame(message=Shutdown())

    def hear(self, frame: Frame) -> bool:
        return True

    def fail(self, error: LimnerError) -> None: ...

    def cancellation(self) -> Message | None:
        return None


def crowd(*names: str) -> tuple[Ledger, dict[str, Work]]:
    ledger, works = Ledger(), {name: Work(name) for name in names}
    for work in works.values():
        ledger.add(work)
    send(ledger)
    return ledger, works


class Engine:
    def cancel(self, message: Message, *, now: float) -> None: ...


ENGINE, OTHER = Engine(), Engine()


def send(ledger: Ledger, engine: Engine = ENGINE) -> list[str]:
    sent = []
    for work in ledger.sendable():
        work.sent_to = engine
        sent.append(work.id)
    return sent


def test_one_death_is_nobodys_fault() -> None:
    ledger, _ = crowd("a", "b", "c")
    assert ledger.engine_died(ENGINE) == (None, 3)
    assert send(ledger) == ["a", "b", "c"]


def test_a_death_is_that_of_one_engine() -> None:
    ledger, works = crowd("a", "b")
    ledger.add(Work("c"))
    send(ledger, OTHER)
    assert ledger.effort_by_engine() == {ENGINE: 2.0, OTHER: 1.0}
    assert ledger.engine_died(OTHER) == (None, 1)
    assert [work.deaths for work in works.values()] == [0, 0]
    assert send(ledger, ENGINE) == ["c"]
    convicted, replayed = ledger.engine_died(ENGINE)
    assert convicted is not None
    assert (convicted.id, replayed) == ("c", 2)


def test_alone_in_two_deaths_is_convicted() -> None:
    ledger, works = crowd("a")
    ledger.engine_died(ENGINE)
    send(ledger)
    assert ledger.engine_died(ENGINE) == (works["a"], 0)
    assert len(ledger) == 0


def test_who_came_between_the_deaths_is_no_suspect() -> None:
    ledger, works = crowd("a")
    ledger.engine_died(ENGINE)
    ledger.add(Work("late"))
    send(ledger)
    convicted, replayed = ledger.engine_died(ENGINE)
    assert (convicted, replayed) == (works["a"], 1)
    assert ledger.find("late") is not None


def test_several_suspects_go_one_at_a_time_until_the_one_is_found() -> None:
    ledger, works = crowd("a", "poison", "b")
    deaths = 0
    while ledger.find("poison"):
        send(ledger)
        if works["poison"].sent_to is not None:
            convicted, _ = ledger.engine_died(ENGINE)
            deaths += 1
            if convicted is not None:
                assert convicted.id == "poison"
        else:
            done = next(work for work in works.values() if work.sent_to is not None)
            ledger.remove(done)
            del works[done.id]
    assert deaths == 3
    assert set(works) == {"poison", "b"}
    assert works["b"].deaths == 0
    assert send(ledger) == ["b"]


def test_what_was_not_sent_was_not_in_flight() -> None:
    ledger, _ = crowd("a")
    ledger.add(Work("waiting"))
    ledger.engine_died(ENGINE)
    assert ledger.find("waiting").deaths == 0  # type: ignore[union-attr]


def test_newcomers_do_not_wait_for_suspects() -> None:
    ledger, works = crowd("a", "b")
    for _ in range(2):
        ledger.engine_died(ENGINE)
        send(ledger)
    assert [work.id for work in works.values() if work.sent_to is not None] == ["a"]
    ledger.add(Work("new"))
    assert send(ledger) == ["new"]


def test_backoff_doubles_and_starts_over_after_a_long_life() -> None:
    backoff = Backoff(first_seconds=1, max_seconds=5)
    assert [backoff.after_life_of(0) for _ in range(5)] == [1, 2, 4, 5, 5]
    assert backoff.after_life_of(11) == 1
    assert backoff.after_life_of(3) == 2
