"""A report as a few lines of text."""

from __future__ import annotations

from collections.abc import Iterable

from loadtests.runner.measures import Figures
from loadtests.runner.report import Judgement, Report
from loadtests.runner.scenario_file import ALL

COLUMNS = (
    "phase", "stream", "sent", "ok", "refused", "other", "offered/s", "images/s", "good/s", "p50, s", "p99, s", "hits",
    "rows",
)  # fmt: skip


def number(value: float | None, digits: int = 3) -> str:
    """Write a figure, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}g}"


def rows(report: Report) -> Iterable[tuple[str, str, Figures]]:
    """Return phases and streams with their figures; a single phase or stream is not repeated as `all`, and a phase in
    which nothing was sent is left out.
    """
    several_phases = len(report.figures) > 2
    for phase, streams in report.figures.items():
        if phase == ALL and several_phases:
            continue
        if phase != ALL and not (several_phases and streams[ALL].sent):
            continue
        for stream, figures in streams.items():
            if stream == ALL and len(streams) == 2:
                continue
            yield phase, stream, figures


def duration(report: Report) -> str:
    """Say how long requests came, and in how many rounds."""
    rounds = report.scenario.rounds
    return f"{report.seconds:g} s" + (f" in {rounds} rounds" if rounds > 1 else "")


def judgement(one: Judgement) -> str:
    """Say what was expected and what was found."""
    expected = one.expectation
    limit = (
        f"at least {expected.at_least:g}"
        if expected.at_least is not None
        else f"at most {expected.at_most:g}"
    )
    return f"{'holds' if one.holds else 'FAILS'}: {expected.about}: {number(one.value)} ({limit})"


def summary(report: Report) -> str:
    """Return a table of the main figures, what was expected, and the notes."""
    told = (
        f"{report.scenario.name}, seed {report.seed}, {duration(report)}; "
        f"{report.speed.capacity:.2f} requests/s and {report.speed.unloaded:.3f} s unloaded "
        f"({'measured' if report.calibrated else 'as given'}); service level {report.slo_seconds:.2f} s"
    )
    lines = [told, "", f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    for phase, stream, one in rows(report):
        ok, refused = one.statuses.get("ok", 0), one.refused.count
        cells = (
            phase, stream, str(one.sent), str(ok), str(refused), str(one.sent - ok - refused),
            number(one.offered), number(one.throughput), number(one.goodput),
            number(one.latency.p50), number(one.latency.p99), number(one.hit_rate, 2), number(one.batch_rows, 2),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(judgement(one) for one in report.judgements), *(f"note: {note}" for note in report.notes)]
    return "\n".join(lines).rstrip()
