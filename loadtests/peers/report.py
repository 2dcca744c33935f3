"""The table: medians of rounds, quantiles of all rounds' calls, ratios within a round."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from loadtests.peers.measure import Measured
from loadtests.ratios import ratios, show
from loadtests.runner.measures import latency

MB = 1_000_000
FEW = 30
"""Of fewer requests a goodput is marked: one of them moves it by more than 3%."""
HEAD = (
    "side", "images/s", "Limner's ratio (least to most)", "p50 s", "p99 s", "Limner's p99 ratio", "unloaded s",
    "goodput, own SLO", "goodput, diffusers' SLO", "offered /s", "peak MB", "levels off",
)  # fmt: skip


@dataclass(slots=True, kw_only=True)
class SideReport:
    """What is known of a side: by load, a `Measured` for each round; or why there is none."""

    name: str
    start_seconds: float = 0.0
    peak_bytes: dict[str, int] = field(default_factory=dict)
    difference: float = 0.0
    rounds: dict[str, list[Measured]] = field(default_factory=dict)
    failure: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return everything, for the file beside the table."""
        return asdict(self)


def table(
    load: str, sides: Sequence[SideReport], first: SideReport | None, base: SideReport | None
) -> list[str]:
    """Return one load's lines in Markdown; `first` is what others are held against, `base` whose SLO they share."""
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    for side in sides:
        rounds = side.rounds.get(load)
        if not rounds:
            lines.append(f"| {side.name} | {side.failure or 'not measured'} |" + " |" * (len(HEAD) - 2))
            continue
        lines.append("| " + " | ".join(_cells(load, side, rounds, first, base)) + " |")
    # Begun with a bare "*", Markdown would make it an item of a list.
    note = ["", f"(*) of fewer than {FEW} requests, all rounds together"]
    return lines + note if any("* |" in line for line in lines) else lines


def _cells(
    load: str, side: SideReport, rounds: list[Measured], first: SideReport | None, base: SideReport | None
) -> list[str]:
    faster = later = "-"
    if first is not None and first is not side and first.rounds.get(load):
        faster = show(_ratios(first.rounds[load], rounds, _rate))
        later = show(_ratios(first.rounds[load], rounds, _p99))
    every = latency(seconds for each in rounds for seconds in each.saturated)
    return [
        f"{side.name} (then {side.failure})" if side.failure else side.name,
        f"{median(each.rate for each in rounds):.2f}",
        faster,
        f"{every.p50:.2f}",
        f"{every.p99:.2f}",
        later,
        f"{median(each.unloaded_latency for each in rounds):.3f}",
        _goodput(rounds, rounds),
        _goodput(rounds, [] if base is None else base.rounds.get(load, [])),
        f"{median(each.offered_rate for each in rounds):.2f}",
        f"{side.peak_bytes.get(load, 0) / MB:.0f}",
        f"{side.difference:.1f}",
    ]


def _goodput(rounds: Sequence[Measured], judges: Sequence[Measured]) -> str:
    """Return a goodput's cell, each round held against the service level of the judge's own."""
    pairs = _common(rounds, judges)
    if not pairs:
        return "-"
    goodput = median(each.goodput(judge.slo_seconds) for each, judge in pairs)
    return f"{goodput:.2f}{_mark([each for each, _ in pairs])}"


def _mark(rounds: Sequence[Measured]) -> str:
    return "*" if sum(len(each.arrivals) for each in rounds) < FEW else ""


def _common(ours: Sequence[Measured], theirs: Sequence[Measured]) -> list[tuple[Measured, Measured]]:
    """Return the rounds that both sides have: of a comparison that broke off, one may lack the last."""
    return list(zip(ours, theirs, strict=False))


def _ratios(
    ours: Sequence[Measured], theirs: Sequence[Measured], figure: Callable[[Measured], float]
) -> tuple[float, float, float]:
    pairs = _common(ours, theirs)
    return ratios([figure(each) for each, _ in pairs], [figure(each) for _, each in pairs])


def _rate(measured: Measured) -> float:
    return measured.rate


def _p99(measured: Measured) -> float:
    p99 = latency(measured.saturated).p99
    assert p99 is not None  # a side that answered nothing has no `Measured`
    return p99


EAGER_PEERS = ("diffusers", "litserve", "litserve-workers", "ray", "pytriton")
COMPILED_PEERS = ("litserve-compiled", "litserve-compiled-workers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One line of the issue's targets, and what came of it; ``ratio`` is None where a side that it needs has failed."""

    what: str
    wanted: str
    ratio: tuple[float, float, float] | None
    met: bool

    def line(self) -> str:
        """Return the line in Markdown."""
        if self.ratio is None:
            return f"| {self.what} | not judged | {self.wanted} | - |"
        return f"| {self.what} | {show(self.ratio)} | {self.wanted} | {'yes' if self.met else 'no'} |"


def targets(sides: Sequence[SideReport]) -> list[Target]:
    """Return the targets that the measured sides allow to judge, each against the best side of its kind."""
    by_name = {side.name: side for side in sides if not side.failure}
    asked = [side.name for side in sides]
    loads = {load for side in sides for load in side.rounds}
    found: list[Target] = []

    def judge(
        ours: str, load: str, names: Sequence[str], factor: float, what: str, *, latency: bool = False
    ) -> None:
        wanted = f"at most {factor:.2f}" if latency else f"at least {factor:g}"
        if ours not in asked or load not in loads:
            return

        def measured(name: str) -> bool:
            return name in by_name and load in by_name[name].rounds

        peers = [by_name[name] for name in names if measured(name)]
        # A peer that failed may have been the best one: the others do not stand for it in silence.
        found.extend(
            Target(what=f"{what}, {load}: {ours} / {name}", wanted=wanted, ratio=None, met=False)
            for name in names
            if not (measured(ours) and measured(name))
        )
        if not measured(ours) or not peers:
            return
        mine = by_name[ours]
        best = max(peers, key=lambda side: median(each.rate for each in side.rounds[load]))
        figure = _p99 if latency else _rate
        ratio = _ratios(mine.rounds[load], best.rounds[load], figure)
        met = ratio[0] <= factor if latency else ratio[0] >= factor
        found.append(
            Target(what=f"{what}, {load}: {ours} / {best.name}", wanted=wanted, ratio=ratio, met=met)
        )

    kinds = ("limner", "limner-lanes", "limner-engines")
    for ours in (*kinds, *(f"{name}:int8" for name in kinds)):
        openvino = _comparable(ours, asked, ["openvino"])
        # Apart, as most users run the one, and the other needs an export and the adapter's scale as an input.
        for peers in (EAGER_PEERS, COMPILED_PEERS):
            torch = _comparable(ours, asked, peers)
            judge(ours, "mixed", torch, 3.0, "images/s")
            judge(ours, "mixed", torch, 1 / 3, "p99", latency=True)
            judge(ours, "homogenous", torch, 2.5, "images/s")
        judge(ours, "mixed", openvino, 1.3, "images/s")
        _judge_unloaded(ours, by_name, found)
    for name in kinds:
        for peers in (EAGER_PEERS, COMPILED_PEERS):
            full = _comparable(f"{name}:float32", asked, peers)
            judge(f"{name}:float32", "mixed", full, 2.0, "images/s in float32")
    return found


def _comparable(ours: str, asked: Iterable[str], peers: Sequence[str]) -> list[str]:
    """Return the sides of `peers` that compute in as many bits as ours, or in more: int8 against all of them."""
    shorter = {"int8": (), "float32": ("int8", "bfloat16")}.get(ours.partition(":")[2], ("int8",))
    sides = [name.partition(":") for name in asked]
    return ["".join(side) for side in sides if side[0] in peers and side[2] not in shorter]


def _judge_unloaded(ours: str, by_name: Mapping[str, SideReport], found: list[Target]) -> None:
    for name in by_name:
        if name.split(":")[0] != "diffusers" or ours not in by_name:
            continue
        for load, rounds in by_name[ours].rounds.items():
            theirs = by_name[name].rounds.get(load, [])
            if theirs:
                ratio = _ratios(rounds, theirs, lambda each: each.unloaded_latency)
                what = f"unloaded latency, {load}: {ours} / {name}"
                found.append(Target(what=what, wanted="at most 0.6", ratio=ratio, met=ratio[0] <= 0.6))
