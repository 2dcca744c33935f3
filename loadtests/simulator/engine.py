"""The engine of a replica: its loop without tensors, around the production scheduler and decode queue."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np

from engine.config import EngineConfig
from engine.loop.decoding import DecodeQueue
from engine.scheduling import Cadence, CostCurve, Policy, Scheduler, SchedulingError, Tick, WorkItem
from engine.scheduling.simulate import Outcome, VirtualClock
from loadtests.simulator.cache import LruCache
from loadtests.simulator.call import Call, Picture
from loadtests.simulator.machine import Machine
from loadtests.simulator.pace import STEADY, OnTick, Pace, SimulatedTick, nobody
from loadtests.simulator.timeline import Timeline

MAX_TEXTS = 16
"""Texts in a call of the text encoder: ``engine.loop.prompts.MAX_BATCH``, which is not imported for its torch."""


@dataclass(slots=True, kw_only=True)
class Counters:
    """Count what an engine did; seconds are of the engine's time."""

    ticks: int = 0
    rows: int = 0
    bucket_rows: int = 0
    busy_seconds: float = 0.0
    encode_seconds: float = 0.0
    encoded: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCosts:
    """What all engines of a fleet share."""

    machine: Machine
    config: EngineConfig
    policy: Policy
    true: CostCurve
    decode: CostCurve
    pace: Pace

    @classmethod
    def of(cls, machine: Machine, config: EngineConfig, pace: Pace = STEADY) -> EngineCosts:
        """Derive everything from the machine. Raises SimulationError."""
        return cls(
            machine=machine,
            config=config,
            policy=machine.policy(config),
            true=machine.true_costs(),
            decode=machine.decode_costs(),
            pace=pace,
        )


class VirtualEngine:
    """Turn after turn, as ``engine.loop.EngineLoop``: mail, image encoder, a tick, decodes.

    What happens within a turn moves the engine's own clock ahead of the timeline, which follows when a tick begins,
    when it ends, and when the turn ends. Calls that come while a tick runs are admitted or refused at once.
    `encoded`, `ended` and `ticked` are called at the moment of the timeline when it is so.
    """

    def __init__(self, costs: EngineCosts, timeline: Timeline, rng: np.random.Generator) -> None:
        machine = costs.machine
        self.counters = Counters()
        self.encoded: Callable[[int], None] = _missing
        self.ended: Callable[[Call, Outcome], None] = _missing
        self.ticked: OnTick = nobody
        self._costs = costs
        self._machine = machine
        self._timeline = timeline
        self._rng = rng
        self._clock = VirtualClock()
        self._scheduler = Scheduler(self._clock, machine.buckets, machine.planned_costs(), costs.policy)
        self._decodes: DecodeQueue[Picture] = DecodeQueue(machine.plan(costs.config))
        room = costs.config.prompt_cache_bytes
        self._prompts = LruCache(capacity_bytes=room, entry_bytes=machine.prompt_bytes)
        self._inbox: deque[Call] = deque()
        self._cancelled: list[Call] = []
        self._references: deque[int] = deque()
        self._pictures: dict[str, Picture] = {}
        self._cadence = Cadence()
        self._turning = False
        self._ticking = False

    # Mail.

    def submit(self, call: Call) -> None:
        """Admit or refuse a call, unless the engine is between two ticks: then it waits for the next."""
        if self._ticking and not self._cancelled:
            self._clock.advance_to(self._timeline.now)
            self._admit(call)
            return
        self._inbox.append(call)
        self._wake()

    def cancel(self, call: Call) -> None:
        """Drop a call at the next turn."""
        self._cancelled.append(call)
        self._wake()

    def encode(self, person: int) -> None:
        """Let a picture wait for the image encoder."""
        self._references.append(person)
        self._wake()

    def _wake(self) -> None:
        if not self._turning:
            self._turning = True
            self._timeline.at(self._timeline.now, self._turn)

    # The heart.

    def _turn(self) -> None:
        self._clock.advance_to(self._timeline.now)
        began = self._clock()
        self._read_mail()
        self._encode_references()
        tick = self._scheduler.next_tick()
        self._expire(self._scheduler.take_expired())
        if tick is None:
            self._cadence.rest()
            self._finish_turn(began, idle=True)
        else:
            self._prepare([self._pictures[item.id] for item in tick.items])
            self._timeline.at(self._clock(), partial(self._run, tick, began))

    def _run(self, tick: Tick, began: float) -> None:
        self._ticking = True
        self._clock.advance_to(self._timeline.now)
        self._scheduler.begin(tick)
        if not self._cancelled:
            self._admit_all()
        seconds = self._tick_seconds(tick)
        self._timeline.at(self._clock() + seconds, partial(self._ran, tick, seconds, began))

    def _ran(self, tick: Tick, seconds: float, began: float) -> None:
        self._ticking = False
        self._clock.advance_to(self._timeline.now)
        self.counters.ticks += 1
        self.counters.rows += tick.rows
        self.counters.bucket_rows += tick.bucket
        ended = self._clock()
        self.ticked(SimulatedTick(ended, tick.bucket, seconds))
        for item in self._scheduler.complete(tick, self._cadence.of(ended - seconds, ended)):
            self._decodes.add(self._pictures[item.id])
        self._finish_turn(began, idle=False)

    def _finish_turn(self, began: float, *, idle: bool) -> None:
        ticked = self._clock()
        self._decode(idle=idle)
        self._cadence.leave_out(self._clock() - ticked)
        self._clock.advance(self._machine.turn_seconds)
        self.counters.busy_seconds += self._clock() - began
        self._timeline.at(self._clock(), self._turned)

    def _turned(self) -> None:
        if self._inbox or self._cancelled or self._references or self._pictures:
            self._turn()
        else:
            self._turning = False
            self._cadence.rest()

    def _read_mail(self) -> None:
        for call in self._cancelled:
            self._scheduler.cancel(str(call.request.id))
            self._drop(call)
        self._cancelled.clear()
        self._admit_all()

    def _admit_all(self) -> None:
        while self._inbox:
            call = self._inbox.popleft()
            if call.outcome is None:
                self._admit(call)

    def _admit(self, call: Call) -> None:
        items = self._items(call)
        try:
            self._scheduler.submit(items)
        except SchedulingError:
            self._end(call, Outcome.REFUSED)
            return
        call.admitted = self._clock()
        call.pictures = [Picture(item=item, job=call) for item in items]
        self._pictures.update((picture.item.id, picture) for picture in call.pictures)

    def _items(self, call: Call) -> list[WorkItem]:
        request = call.request
        shape = self._machine.shape
        if request.width is not None and request.height is not None:
            shape = self._machine.shape_of(request.width, request.height)
        return [
            WorkItem(
                id=f"{request.id}/{index}",
                job_id=str(request.id),
                steps=request.steps,
                rows=request.rows,
                shape=shape,
                priority=request.priority,
                deadline=None if request.deadline is None else request.at + request.deadline,
                deterministic=request.deterministic,
            )
            for index in range(request.images)
        ]

    def _encode_references(self) -> None:
        if not self._references:
            return
        count = min(self._machine.encode_batch, len(self._references))
        batch = [self._references.popleft() for _ in range(count)]
        seconds = self._pass(self._machine.encode_seconds)
        self.counters.encode_seconds += seconds
        self.counters.encoded += len(batch)
        for person in batch:
            self._timeline.at(self._clock(), partial(self.encoded, person))

    def _tick_seconds(self, tick: Tick) -> float:
        seconds = self._costs.true.warmup_seconds(tick.shape, tick.bucket) + self._machine.step_seconds
        seconds += self._machine.step_seconds_image * len(tick.items)
        if self._machine.jitter:
            seconds *= float(self._rng.lognormal(0.0, self._machine.jitter))
        return seconds * self._slowdown

    def _prepare(self, pictures: list[Picture]) -> None:
        """Encode the prompts of calls that take their first tick, and compute their keys and values."""
        calls = [call for call in dict.fromkeys(picture.job for picture in pictures) if call.started is None]
        texts = 0
        for call in calls:
            call.started = self._clock()
            prompt = call.request.prompt
            if prompt is None or not self._prompts.get(prompt):
                texts += 1
                if prompt is not None:
                    self._prompts.put(prompt)
        calls_of_encoder = -(-texts // MAX_TEXTS)
        seconds = calls_of_encoder * self._machine.prompt_seconds
        seconds += texts * self._machine.prompt_seconds_each
        seconds += self._machine.place_seconds * sum(
            call.request.images * call.request.rows for call in calls
        )
        self._pass(seconds)

    def _decode(self, *, idle: bool) -> None:
        for batch in self._decodes.due(idle=idle):
            now = self._clock()
            self._expire(p.item for p in batch if p.item.deadline is not None and p.item.deadline <= now)
            alive = [picture for picture in batch if picture.item.id in self._pictures]
            if not alive:
                continue
            shape = alive[0].item.shape
            area = (shape[1] * shape[2]) / (self._machine.shape[1] * self._machine.shape[2])
            seconds = self._costs.decode.warmup_seconds(self._machine.shape, len(alive)) * area
            self._pass(seconds)
            for picture in alive:
                del self._pictures[picture.item.id]
                picture.job.delivered += 1
                if picture.job.delivered == picture.job.request.images:
                    self._end(picture.job, Outcome.FINISHED)
                    self._pass(self._machine.contention_seconds)

    # The end.

    def _expire(self, items: Iterable[WorkItem]) -> None:
        """End the calls of items whose deadline has passed."""
        for item in list(items):
            picture = self._pictures.get(item.id)
            if picture is not None:
                self._scheduler.cancel(item.job_id)
                self._drop(picture.job)
                self._end(picture.job, Outcome.EXPIRED)

    def _drop(self, call: Call) -> None:
        self._decodes.drop(call)
        for picture in call.pictures:
            self._pictures.pop(picture.item.id, None)

    def _end(self, call: Call, outcome: Outcome) -> None:
        self._timeline.at(self._clock(), partial(self.ended, call, outcome))

    @property
    def _slowdown(self) -> float:
        return self._machine.slowdown * self._costs.pace(self._clock())

    def _pass(self, seconds: float) -> float:
        """Let the engine's time pass; return how much did."""
        seconds *= self._slowdown
        self._clock.advance(seconds)
        return seconds


def _missing(*_: object) -> None:
    raise AssertionError("an engine belongs to a server")
