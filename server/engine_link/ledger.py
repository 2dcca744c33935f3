"""What is in flight, who is suspected of killing engines, and what may be sent to the next one.

Work that was in flight in one death is sent again with everything else: most deaths are nobody's fault. In flight in
two deaths, of whichever engines, it is a suspect. A lone suspect is convicted; several are sent one at a time beside
everybody else's work, so that a third death names the one. A conviction explains the deaths, so it clears the others.
"""

from __future__ import annotations

from collections.abc import Iterable

from server.engine_link.work import Recipient, Work

SUSPECT_DEATHS = 2


class Ledger:
    """All work in flight by id, in order of arrival."""

    def __init__(self) -> None:
        self._works: dict[str, Work] = {}

    def __len__(self) -> int:
        return len(self._works)

    def add(self, work: Work) -> None:
        """Enter work; its id must be new."""
        assert work.id not in self._works, work.id
        self._works[work.id] = work

    def remove(self, work: Work) -> bool:
        """Take work out; False when it was out."""
        if self._works.get(work.id) is not work:
            return False
        del self._works[work.id]
        return True

    def find(self, work_id: str) -> Work | None:
        """Return the work of this id, or None when it is done or forgotten."""
        return self._works.get(work_id)

    def remove_all(self) -> list[Work]:
        """Take everything out."""
        works = list(self._works.values())
        self._works.clear()
        return works

    def may_send(self, work: Work) -> bool:
        """Whether to send this work now."""
        return work.sent_to is None and not (_is_suspect(work) and self._suspect_in_flight())

    def sendable(self) -> Iterable[Work]:
        """Yield all that may be sent now. Send each before the next is drawn."""
        return (work for work in list(self._works.values()) if self.may_send(work))

    def effort_by_engine(self) -> dict[Recipient, float]:
        """Return how much each engine was sent that is not done (``Work.effort``)."""
        sent: dict[Recipient, float] = {}
        for work in self._works.values():
            if work.sent_to is not None:
                sent[work.sent_to] = sent.get(work.sent_to, 0.0) + work.effort
        return sent

    def engine_died(self, engine: Recipient) -> tuple[Work | None, int]:
        """Enter the death of an engine. Return who is convicted of it, taken out, and how much is to be replayed."""
        flown = [work for work in self._works.values() if work.sent_to is engine]
        for work in flown:
            work.died()
        suspects = [work for work in flown if _is_suspect(work)]
        if len(suspects) != 1:
            return None, len(flown)
        self.remove(suspects[0])
        for work in self._works.values():
            work.deaths = 0
        return suspects[0], len(flown) - 1

    def _suspect_in_flight(self) -> bool:
        return any(work.sent_to is not None and _is_suspect(work) for work in self._works.values())


def _is_suspect(work: Work) -> bool:
    return work.deaths >= SUSPECT_DEATHS
