"""The plan: a scenario, a seed and a target's speed make one list of requests, always the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, cycle, product
from random import Random
from typing import TypeVar

import msgspec

from loadtests.runner.arrivals import moments
from loadtests.runner.request import PlannedRequest
from loadtests.runner.scenario import Mix, Scenario, Span, Stream

T = TypeVar("T")

FIRST_NEWCOMER = 1_000_000
"""People of this number and above are shown once; see `Mix.people` for its limit."""
SEEDS = 2**31
CALIBRATION_PEOPLE = 8


class Speed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a target can do: `capacity` in requests a second, `unloaded` in seconds for a request that is alone."""

    capacity: float
    unloaded: float

    def seconds(self, span: Span) -> float:
        """Return how long a span is."""
        if span.seconds is not None:
            return span.seconds
        assert span.unloaded is not None
        return span.unloaded * self.unloaded


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Requests in the order of their moments."""

    scenario: Scenario
    seed: int
    speed: Speed
    requests: tuple[PlannedRequest, ...]

    @property
    def people(self) -> list[int]:
        """Everybody whose picture a request shows, once."""
        return sorted({request.person for request in self.requests if request.person is not None})

    @property
    def known_people(self) -> list[int]:
        """Those of them whom the target knows before the load begins."""
        if not self.scenario.known:
            return []
        return [person for person in self.people if person < FIRST_NEWCOMER]


def make_plan(scenario: Scenario, seed: int, speed: Speed) -> Plan:
    """Draw every request of a scenario. Streams, properties and rounds have their own chance, so that a change of one
    leaves the others as they were. A trace begins again with each turn of a phase.
    """
    turns = scenario.turns()
    requests: list[PlannedRequest] = []
    newcomers = iter(range(FIRST_NEWCOMER, 2**31))
    for stream in scenario.streams:
        draw = Draw(stream, seed, speed, scenario.known)
        for turn, phase in product(range(scenario.rounds), stream.phases or turns):
            begin, end = turns[phase][turn]
            key = f"{seed}/{stream.name}/{'' if stream.alike else phase}/arrivals"
            # The first round is that of a scenario without others.
            chance = Random(f"{key}/{turn}" if turn else key)
            for at, person in moments(stream.arrivals, begin, end, speed.capacity, chance):
                requests.append(draw.request(at, phase, turn, person, newcomers.__next__))
    requests.sort(key=lambda request: request.at)
    numbered = (msgspec.structs.replace(request, number=number) for number, request in enumerate(requests))
    return Plan(scenario=scenario, seed=seed, speed=speed, requests=tuple(numbered))


def samples(scenario: Scenario, seed: int) -> Iterator[PlannedRequest]:
    """Draw requests for calibration without end: of all streams in turn, of a few people who come again, patient."""
    patient = [
        msgspec.structs.replace(
            stream,
            deadline=None,
            cancel=None,
            priority="interactive",
            mix=msgspec.structs.replace(
                stream.mix, newcomers=0.0, people=min(CALIBRATION_PEOPLE, stream.mix.people)
            ),
        )
        for stream in scenario.streams
    ]
    draws = [Draw(stream, seed, Speed(capacity=1.0, unloaded=1.0), known=True) for stream in patient]
    for number, draw in enumerate(cycle(draws)):
        request = draw.request(0.0, "calibration", 0, None, iter(()).__next__)
        yield msgspec.structs.replace(request, number=number)


class Draw:
    """Draws the properties of a stream's requests, one request after another."""

    def __init__(self, stream: Stream, seed: int, speed: Speed, known: bool) -> None:
        self._stream = stream
        self._seed = seed
        self._speed = speed
        self._known = known
        self._shown: set[int] = set()
        self._count = 0
        self._chances: dict[str, Random] = {}
        self._cumulative = _zipf(stream.mix.people, stream.mix.zipf)

    def request(
        self, at: float, phase: str, turn: int, person: int | None, newcomer: Callable[[], int]
    ) -> PlannedRequest:
        """Draw the next request; `person` is the one that a trace names."""
        stream, mix = self._stream, self._stream.mix
        shown, first = self._person(mix, person, newcomer)
        width, height = self._pick("sizes", mix.sizes)
        self._count += 1
        return PlannedRequest(
            number=0,
            at=at,
            stream=stream.name,
            phase=phase,
            turn=turn,
            prompt=self._prompt(mix),
            seed=self._chance("seeds").randrange(SEEDS),
            person=shown,
            brings_picture=first,
            steps=self._pick("steps", mix.steps),
            sampler=self._pick("samplers", mix.samplers),
            guidance_scale=self._pick("guidance_scales", mix.guidance_scales),
            ip_adapter_scale=self._pick("ip_adapter_scales", mix.ip_adapter_scales),
            width=width,
            height=height,
            images=self._pick("images", mix.images),
            format=self._pick("formats", mix.formats),
            priority=stream.priority,
            deadline=None if stream.deadline is None else self._speed.seconds(stream.deadline),
            cancel_after=self._cancel_after(),
        )

    def _person(self, mix: Mix, traced: int | None, newcomer: Callable[[], int]) -> tuple[int | None, bool]:
        """Return who is shown and whether the picture comes along, as it does the first time."""
        referenced = self._chance("referenced").random() < mix.referenced
        new = self._chance("newcomers").random() < mix.newcomers
        drawn = self._chance("people").choices(range(mix.people), cum_weights=self._cumulative)[0]
        if not referenced:
            return None, False
        if new:
            return newcomer(), True
        person = drawn if traced is None else traced
        first = not self._known and person not in self._shown
        self._shown.add(person)
        return person, first

    def _prompt(self, mix: Mix) -> str:
        if mix.prompts == 0:
            return _prompt(f"{self._seed}/{self._stream.name}/{self._count}")
        return _prompt(f"{self._seed}/{self._chance('prompts').randrange(mix.prompts)}")

    def _cancel_after(self) -> float | None:
        cancel = self._stream.cancel
        if cancel is None:
            return None
        gives_up = self._chance("cancel").random() < cancel.share
        after = self._chance("cancel_after").uniform(*cancel.after) * self._speed.unloaded
        return after if gives_up else None

    def _pick(self, name: str, values: Sequence[T]) -> T:
        return self._chance(name).choice(values)

    def _chance(self, name: str) -> Random:
        if name not in self._chances:
            # A string seeds by its SHA-512, alike in every process.
            self._chances[name] = Random(f"{self._seed}/{self._stream.name}/{name}")
        return self._chances[name]


@lru_cache(maxsize=8)
def _zipf(people: int, exponent: float) -> list[float]:
    return list(accumulate(rank**-exponent for rank in range(1, people + 1)))


@lru_cache(maxsize=8192)
def _prompt(key: str) -> str:
    # Captions of the drawn world, as the model in the box was trained on. Needs no torch.
    from engine.embedded.world import caption, sample_scene

    random = Random(key)
    return caption(sample_scene(random), random)
