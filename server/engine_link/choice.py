"""Which of a model's engines gets a piece of work."""

from __future__ import annotations

from collections.abc import Sequence

from server.engine_link.engine import Engine
from server.engine_link.ledger import Ledger
from server.engine_link.work import Job, Work


def choose_engine(engines: Sequence[Engine], work: Work, ledger: Ledger, *, now: float) -> Engine | None:
    """Return the engine that would be done with it first; None when there is none.

    That is the one with the least work, in seconds at its own speed, the new one included. What has been sent counts
    in full until it is done: how far it is, only its engine knows. One that has just refused the like of a job is asked
    when all have. Of equals the first is taken, which so keeps the prompts of quiet hours in its cache.
    """
    if len(engines) < 2:
        return engines[0] if engines else None
    sent = ledger.effort_by_engine()

    def cost(engine: Engine) -> tuple[bool, float]:
        refused = isinstance(work, Job) and engine.refusals.of(work.submit, deadline=work.deadline, now=now)
        return bool(refused), (sent.get(engine, 0.0) + work.effort) * engine.seconds_a_row

    return min(engines, key=cost)
