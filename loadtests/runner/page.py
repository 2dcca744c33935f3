"""The page: a report as one HTML file that needs nothing else, by day and by night."""

from __future__ import annotations

from html import escape
from pathlib import Path

from loadtests.runner.measures import Figures, memory, slope
from loadtests.runner.plots import PLOTS, SLOPE_SECONDS
from loadtests.runner.report import Report
from loadtests.runner.text import duration, judgement, number, rows

STYLE = """
:root { color-scheme: light dark; --ink: #1d1f21; --soft: #63686e; --paper: #fbfbfa; --line: #dcdcd8;
  --bad: #b3261e; --good: #2e7d4f; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #d8d9da; --soft: #979ca1; --paper: #1b1c1e; --line: #37393c;
    --bad: #ff8a80; --good: #7fc79b; }
}
body { margin: 2rem auto; max-width: 84rem; padding: 0 1rem; color: var(--ink); background: var(--paper);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; } h2 { font-size: 1.05rem; margin: 0 0 .2rem; }
p, li { color: var(--soft); margin: .2rem 0; } ul { padding-left: 1.2rem; }
.bad { color: var(--bad); } .good { color: var(--good); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-size: .86rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .5rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { color: var(--soft); font-weight: 500; white-space: normal; vertical-align: bottom; }
th.name, td.name { text-align: left; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(34rem, 100%), 1fr)); gap: 1.5rem; }
figure { margin: 0; padding: 1rem; border: 1px solid var(--line); border-radius: 6px; }
figure svg { width: 100%; height: auto; color: var(--ink); display: block; }
figcaption { color: var(--soft); font-size: .86rem; }
"""


def write_page(report: Report, path: Path) -> None:
    """Write the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(report), encoding="utf-8")


def page(report: Report) -> str:
    """Return the page as HTML."""
    name = escape(report.scenario.name)
    shown = [plot.html(report) for plot in PLOTS]
    plots = "\n".join(each for each in shown if each.startswith("<figure"))
    left_out = "\n".join(each for each in shown if not each.startswith("<figure"))
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}: load test</title><style>{STYLE}</style></head>
<body>
<h1>{name}</h1>
<p>{escape(report.scenario.about)}</p>
<p>{escape(_facts(report))}</p>
{_expected(report)}
<div class="scroll">{_table(report)}</div>
{_refusals(report)}
<div class="plots">
{plots}
</div>
{left_out}
</body></html>
"""


def _facts(report: Report) -> str:
    speed = f"{report.speed.capacity:.2f} requests/s, {report.speed.unloaded:.3f} s unloaded"
    return (
        f"{report.started}, {report.target}, seed {report.seed}, {duration(report)}. Target's speed "
        f"({'measured before the load' if report.calibrated else 'as given'}): {speed}. Service level "
        f"{report.slo_seconds:.2f} s. {report.machine.cpus} CPUs, {report.machine.system}, "
        f"Python {report.machine.python}."
    )


def _expected(report: Report) -> str:
    lines = [
        f'<li class="{"good" if one.holds else "bad"}">{escape(judgement(one))}</li>'
        for one in report.judgements
    ]
    lines += [f'<li class="bad">note: {escape(note)}</li>' for note in report.notes]
    points = [(one.at, found) for one in report.samples if (found := memory(one)) is not None]
    later = [point for point in points if point[0] >= report.seconds / 2]
    for what, part in (("the whole run", points), ("its later half", later)):
        if report.seconds >= SLOPE_SECONDS and (rise := slope(part)) is not None:
            lines.append(f"<li>memory over {what}: {3600 * rise / 1e6:+.1f} MB/h</li>")
    return f"<ul>{''.join(lines)}</ul>" if lines else ""


_COLUMNS = (
    "phase", "stream", "sent", "ok", "refused", "expired", "cancelled", "failed", "unfinished", "offered/s",
    "images/s", "good/s", "p50, s", "p90, s", "p99, s", "hits, %", "hit p50, s", "miss p50, s", "useful rows",
    "padded, %", "encodes",
)  # fmt: skip


def _table(report: Report) -> str:
    lines = []
    for phase, stream, one in rows(report):
        counts = [str(one.statuses.get(name, 0)) for name in _COLUMNS[3:9]]
        figures = (
            one.offered, one.throughput, one.goodput, one.latency.p50, one.latency.p90, one.latency.p99,
            None if one.hit_rate is None else 100 * one.hit_rate, _median(one, "hit"), _median(one, "miss"),
            one.batch_rows, None if one.padded_share is None else 100 * one.padded_share, one.encodes,
        )  # fmt: skip
        cells = [str(one.sent), *counts, *(number(value) for value in figures)]
        named = f'<td class="name">{escape(phase)}</td><td class="name">{escape(stream)}</td>'
        lines.append(f"<tr>{named}{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    head = "".join(
        f'<th class="name">{name}</th>' if place < 2 else f"<th>{name}</th>"
        for place, name in enumerate(_COLUMNS)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _refusals(report: Report) -> str:
    whole = report.figures["all"]["all"]
    lines = [
        f"<li>{escape(reason)}: {one.count}, answered after {_milliseconds(one.answered.p50)} (median), "
        f"{_milliseconds(one.answered.p99)} (p99); {one.with_retry_info} with RetryInfo</li>"
        for reason, one in whole.refusals.items()
    ]
    lines += [f'<li class="bad">{count} times {escape(text)}</li>' for text, count in whole.errors.items()]
    return f"<ul>{''.join(lines)}</ul>" if lines else ""


def _median(figures: Figures, cache: str) -> float | None:
    found = figures.by_cache.get(cache)
    return None if found is None else found.p50


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.1f} ms"
