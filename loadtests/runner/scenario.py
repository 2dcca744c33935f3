"""The scenario as its data file has it, with the limits of every key."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from loadtests.runner.request import Priority

Share = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Name = Annotated[str, Meta(pattern="^[a-z0-9]+(-[a-z0-9]+)*$")]
Side = Annotated[int, Meta(ge=0, le=4096)]
Sampler = Literal["ddim", "euler", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_karras", "unipc", "lcm"]
Format = Literal["png", "jpeg", "webp"]


class Span(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A time: `seconds`, or a multiple of what a request takes when the target is otherwise idle. One of them."""

    seconds: Positive | None = None
    unloaded: Positive | None = None


class Poisson(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="poisson", tag_field="kind"):
    """Independent arrivals, at `rate` times the target's capacity or at `per_second`. One of them."""

    rate: Positive | None = None
    per_second: Positive | None = None


class Bursts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="bursts", tag_field="kind"):
    """Bursts of `size` requests within `within` seconds, which come independently of one another.

    `rate` and `per_second` count requests, as with Poisson arrivals.
    """

    size: Annotated[int, Meta(ge=2, le=10_000)]
    within: NotNegative = 0.0
    rate: Positive | None = None
    per_second: Positive | None = None


class Trace(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="trace", tag_field="kind"):
    """Recorded arrivals, begun again when they are through.

    `file`, beside the scenario's, is CSV with a column `at` (seconds, ascending) and perhaps `person`; the loader puts
    its columns into `offsets` and `people`. With `rate` or `per_second` time is stretched so that the mean is that;
    else the trace plays as it was recorded.
    """

    file: str = ""
    offsets: tuple[NotNegative, ...] = ()
    people: tuple[Annotated[int, Meta(ge=0)], ...] = ()
    rate: Positive | None = None
    per_second: Positive | None = None


class Closed(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="closed", tag_field="kind"):
    """So many callers, each of whom waits for its answer and `think` seconds before it asks again.

    At the end of a phase's turn they stop. In the next one they ask from its begin, or from the answer that they still
    wait for, so that there are never more of them.
    """

    concurrency: Annotated[int, Meta(ge=1, le=10_000)]
    think: NotNegative = 0.0


Arrivals = Poisson | Bursts | Trace | Closed


class Cancel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A share of callers who give up, evenly between two multiples of the unloaded latency."""

    share: Share
    after: tuple[NotNegative, NotNegative] = (0.1, 0.9)


class Mix(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What requests are made of. Each property is drawn by itself; of a list evenly, so a value may be repeated.

    prompts: so many different prompts; 0 for one of its own for every request.
    referenced: share of requests with a reference. newcomers: share of these that show somebody for the first time,
        and send the picture. The others show one of `people`, drawn by Zipf's law with exponent `zipf`.
    sizes: width and height in pixels; 0 and 0 for the model's default.
    """

    prompts: Annotated[int, Meta(ge=0, le=100_000)] = 64
    referenced: Share = 1.0
    newcomers: Share = 0.0
    people: Annotated[int, Meta(ge=1, le=1_000_000)] = 64
    zipf: Annotated[float, Meta(ge=0, le=4)] = 1.0
    steps: Annotated[tuple[Annotated[int, Meta(ge=1, le=1000)], ...], Meta(min_length=1)] = (20,)
    samplers: Annotated[tuple[Sampler, ...], Meta(min_length=1)] = ("ddim",)
    guidance_scales: Annotated[tuple[NotNegative, ...], Meta(min_length=1)] = (5.0,)
    ip_adapter_scales: Annotated[tuple[NotNegative, ...], Meta(min_length=1)] = (1.0,)
    sizes: Annotated[tuple[tuple[Side, Side], ...], Meta(min_length=1)] = ((0, 0),)
    images: Annotated[tuple[Annotated[int, Meta(ge=1, le=64)], ...], Meta(min_length=1)] = (1,)
    formats: Annotated[tuple[Format, ...], Meta(min_length=1)] = ("png",)

    @property
    def mean_images(self) -> float:
        """Images that a request asks for, on average."""
        return sum(self.images) / len(self.images)


class Stream(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Callers of one kind, in the named phases of the scenario; in all of them when none is named.

    alike: in every phase they come at the same moments from its begin, so that what differs is not their chance; in
        another round at others.
    """

    name: Name
    arrivals: Arrivals
    mix: Mix = Mix()
    phases: tuple[str, ...] = ()
    alike: bool = False
    priority: Priority = "interactive"
    deadline: Span | None = None
    cancel: Cancel | None = None


class Phase(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stretch of the load that is reported by itself; `share` is its part of the duration, against the others'.

    One that no stream has is a pause, in which what is in flight comes to its end.
    """

    name: Name
    share: Positive = 1.0


class CalibrationSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a target's capacity is found: `alone` calls one by one, then `concurrency` callers for `seconds`."""

    alone: Annotated[int, Meta(ge=1, le=1000)] = 9
    concurrency: Annotated[int, Meta(ge=1, le=10_000)] = 16
    seconds: Positive = 10.0


class Expectation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What must hold of a run: a figure, or its ratio to `against`, is at least or at most so much.

    Figures are named ``phase.stream.measure``; ``all`` stands for every phase or stream, ``capacity`` (requests a
    second) and ``unloaded`` (seconds) for what calibration found. ``rest_capacity`` can only be held against: images a
    second that the streams that came at a rate left of the capacity, in the phase of `of`. That capacity is what the
    scenario's `capacity_phase` came to, or calibration's, with the mean images of its requests.
    """

    about: str
    of: str
    against: str = ""
    at_least: float | None = None
    at_most: float | None = None


class Scenario(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A load, by name. Times in seconds.

    seconds: how long requests come. slo: what an answer may take to count as good.
    known: the people of the mixes have been uploaded before the load begins.
    rounds: so often the phases take turns, all turns of one alike in length. What a machine's speed does over minutes
        then happens to all phases. A phase's figures are of all its turns.
    capacity_phase: the phase whose ``all.throughput`` is the capacity that `rest_capacity` is reckoned from, in images
        a second; where none is named it is calibration's.
    """

    name: Name
    about: str
    seconds: Positive
    streams: Annotated[tuple[Stream, ...], Meta(min_length=1)]
    slo: Span = Span(unloaded=3.0)
    known: bool = True
    phases: Annotated[tuple[Phase, ...], Meta(min_length=1)] = (Phase(name="load"),)
    rounds: Annotated[int, Meta(ge=1, le=1000)] = 1
    capacity_phase: str = ""
    calibration: CalibrationSettings = CalibrationSettings()
    expect: tuple[Expectation, ...] = ()

    def turns(self) -> dict[str, tuple[tuple[float, float], ...]]:
        """Return when each turn of each phase begins and ends; a phase has one in every round."""
        whole = sum(phase.share for phase in self.phases)
        turns: dict[str, list[tuple[float, float]]] = {phase.name: [] for phase in self.phases}
        begin = 0.0
        for _ in range(self.rounds):
            for phase in self.phases:
                end = begin + self.seconds / self.rounds * phase.share / whole
                turns[phase.name].append((begin, end))
                begin = end
        return {name: tuple(each) for name, each in turns.items()}

    def lasting(self, seconds: float) -> Scenario:
        """Return the same load over another time."""
        return msgspec.structs.replace(self, seconds=seconds)
