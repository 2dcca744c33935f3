"""Write a run as `python -m loadtests simulate --validate` reads it: what was asked, and what came of it."""

from __future__ import annotations

import argparse
from itertools import islice, pairwise
from math import ceil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from loadtests.runner.calibration import warming
from loadtests.runner.errors import ReportError
from loadtests.runner.plan import make_plan, samples
from loadtests.runner.report import Report, read_report
from loadtests.runner.request import PlannedRequest
from loadtests.runner.scenario import Closed
from loadtests.runner.target import Status
from loadtests.runner.watch import Sample
from loadtests.ticks import NONE, BucketTicks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.set_defaults(run=run)
    parser.add_argument("report", type=Path, metavar="REPORT.json")
    parser.add_argument("out", type=Path, metavar="RUN.json")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    exported = export(read_report(options.report))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_bytes(msgspec.json.format(msgspec.json.encode(exported), indent=1) + b"\n")
    return 0


def export(report: Report) -> dict[str, Any]:
    """Return a run for the simulator. Raises ReportError for one that it has no words for.

    The report keeps seed and speed, from which the plan is made again; of a closed loop, what was really sent.
    """
    closed = [stream for stream in report.scenario.streams if isinstance(stream.arrivals, Closed)]
    if closed and (len(report.scenario.streams) > 1 or len(report.scenario.phases) > 1):
        raise ReportError(
            f"{report.scenario.name}: callers of a closed loop cannot share a run with others, nor have phases"
        )
    plan = make_plan(report.scenario, report.seed, report.speed)
    done = [one for one in report.records if one.status is Status.OK]
    if not done:
        raise ReportError(f"{report.scenario.name}: no request was answered")
    sent = {one.number for one in report.records}
    prompts: dict[str, int] = {}
    latencies = [one.latency for one in done]
    p50, p95, p99 = np.quantile(latencies, (0.5, 0.95, 0.99)).tolist()
    began = min(one.due for one in report.records)
    arrivals = closed[0].arrivals if closed else None
    return {
        "name": report.scenario.name,
        "requests": [
            _request(one, prompts.setdefault(one.prompt, len(prompts)))
            for one in plan.requests
            if one.number in sent
        ],
        "real": {
            "throughput": sum(one.images for one in done) / (max(one.done for one in done) - began),
            "p50": p50,
            "p95": p95,
            "p99": p99,
        },
        "callers": arrivals.concurrency if isinstance(arrivals, Closed) else 0,
        "known": plan.known_people,
        "calibration": _calibration(report) if report.calibrated else None,
        "ticks": _ticks(report),
    }


def _ticks(report: Report) -> dict[str, Any] | None:
    """Return what the engine's ticks took in the calibration and between two readings of the run.

    None where that was not read, or not of one server throughout.
    """
    readings = (*report.calibration, *report.samples)
    if len(report.calibration) != 2 or len(report.samples) < 2:
        return None
    grown = [_grown(*both) for both in pairwise(readings)]
    if any(ticks.count < 0 or ticks.seconds < 0 for each in grown for ticks in each.values()):
        return None
    run = zip(report.samples[1:], grown[2:], strict=True)
    return {"calibration": grown[0], "run": [{"until": later.at, "ticks": ticks} for later, ticks in run]}


def _grown(earlier: Sample, later: Sample) -> dict[int, BucketTicks]:
    """Return the ticks between two readings by bucket; fewer than none where they are of two servers."""
    return {
        bucket: later.ticks.get(bucket, NONE) - earlier.ticks.get(bucket, NONE)
        for bucket in earlier.ticks | later.ticks
    }


def _calibration(report: Report) -> dict[str, Any]:
    """Return what ``calibrate`` asked for and found; it draws the same requests each time."""
    settings = report.scenario.calibration
    requests = samples(report.scenario, report.seed)
    for _ in warming(report.scenario):
        next(requests)
    alone = list(islice(requests, settings.alone))
    # A simulated server may be faster than the real one was.
    saturated = islice(requests, settings.concurrency + ceil(3 * report.speed.capacity * settings.seconds))
    prompts: dict[str, int] = {}
    return {
        "alone": [_request(one, prompts.setdefault(one.prompt, len(prompts))) for one in alone],
        "unloaded": report.speed.unloaded,
        "saturated": [_request(one, prompts.setdefault(one.prompt, len(prompts))) for one in saturated],
        "callers": settings.concurrency,
        "seconds": settings.seconds,
        "capacity": report.speed.capacity,
    }


def _request(one: PlannedRequest, prompt: int) -> dict[str, Any]:
    return {
        "at": one.at,
        "person": one.person,
        "brings_bytes": one.brings_picture,
        "prompt": prompt,
        "images": one.images,
        "steps": one.steps,
        "guided": one.guidance_scale > 1,
        "width": one.width or None,
        "height": one.height or None,
        "priority": one.priority,
        "deadline": one.deadline,
        "cancel_after": one.cancel_after,
    }
