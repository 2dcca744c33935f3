"""The server of a replica: permits, and references from the caches or through the engine's image encoder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from engine.scheduling.simulate import Outcome
from loadtests.simulator.cache import LruCache
from loadtests.simulator.call import Call, Found
from loadtests.simulator.engine import VirtualEngine
from loadtests.simulator.machine import Machine
from loadtests.simulator.timeline import Timeline


class VirtualServer:
    """Take calls, find their references, hand them to the engine, and answer.

    `ended` is called once for each call, when its answer is with the caller.
    """

    def __init__(
        self,
        *,
        machine: Machine,
        timeline: Timeline,
        engine: VirtualEngine,
        cache: LruCache,
        shared: LruCache | None,
        permits: int,
        ended: Callable[[Call], None],
    ) -> None:
        self._machine = machine
        self._timeline = timeline
        self._engine = engine
        self._cache = cache
        self._shared = shared
        self._permits = permits
        self._in_flight = 0
        self._ended = ended
        self._waiting: dict[int, list[Call]] = {}
        """Calls by the person whose reference is looked up or encoded for them."""
        engine.encoded = self._have
        engine.ended = self._answer

    def receive(self, call: Call) -> None:
        """Take a call at this moment."""
        if self._in_flight >= self._permits:
            self._timeline.at(self._now + self._machine.arrive_seconds, partial(self._refuse, call))
            return
        self._in_flight += 1
        self._timeline.at(self._now + self._machine.arrive_seconds, partial(self._look_up, call))
        if call.request.cancel_after is not None:
            self._timeline.at(self._now + call.request.cancel_after, partial(self._cancel, call))

    @property
    def _now(self) -> float:
        return self._timeline.now

    # The reference.

    def _look_up(self, call: Call) -> None:
        person = call.request.person
        if call.outcome is not None:
            return
        if person is None:
            self._engine.submit(call)
        elif self._cache.get(person):
            call.found = Found.HIT
            self._engine.submit(call)
        elif person in self._waiting:
            call.found = Found.COALESCED
            self._waiting[person].append(call)
        else:
            call.found = Found.MISS
            self._waiting[person] = [call]
            if self._shared is None:
                self._fetch(call)
            else:
                self._timeline.at(self._now + self._machine.shared_seconds, partial(self._look_further, call))

    def _look_further(self, call: Call) -> None:
        """Look into the cache that the replicas share."""
        person = call.request.person
        assert person is not None and self._shared is not None
        if self._shared.get(person):
            call.found = Found.SHARED
            self._have(person)
        else:
            self._fetch(call)

    def _fetch(self, call: Call) -> None:
        """Have the picture brought and prepared, then encoded."""
        person = call.request.person
        assert person is not None
        self._timeline.at(self._now + self._machine.upload_seconds, partial(self._engine.encode, person))

    def _have(self, person: int) -> None:
        """Go on with the calls that waited for a reference."""
        self._cache.put(person)
        if self._shared is not None:
            self._shared.put(person)
        for call in self._waiting.pop(person):
            if call.outcome is None:
                self._engine.submit(call)

    # The end.

    def _cancel(self, call: Call) -> None:
        if call.outcome is None:
            self._engine.cancel(call)
            self._finish(call, Outcome.CANCELLED)

    def _refuse(self, call: Call) -> None:
        call.outcome, call.ended = Outcome.REFUSED, self._now
        self._ended(call)

    def _answer(self, call: Call, outcome: Outcome) -> None:
        """Answer a call that the engine is done with; pictures are coded first."""
        if call.outcome is not None:
            return
        if outcome is Outcome.FINISHED:
            then = partial(self._finish, call, outcome)
            self._timeline.at(self._now + self._machine.answer_seconds, then)
        else:
            self._finish(call, outcome)

    def _finish(self, call: Call, outcome: Outcome) -> None:
        if call.outcome is not None:
            return
        self._in_flight -= 1
        call.outcome, call.ended = outcome, self._now
        self._ended(call)
