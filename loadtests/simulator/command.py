"""The command ``python -m loadtests simulate``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from math import isfinite
from pathlib import Path
from typing import Any

import msgspec

from loadtests.simulator.errors import SimulationError
from loadtests.simulator.machine import presets, read_machine
from loadtests.simulator.plots import MEASURES, draw, value
from loadtests.simulator.routing import ROUTERS
from loadtests.simulator.study import Point, Study, Sweep
from loadtests.simulator.summary import Summary
from loadtests.simulator.validation import read_run, table, validate

SHOWN = (
    "throughput",
    "goodput_share",
    "latency.p50",
    "latency.p95",
    "latency.p99",
    "hit_rate",
    "padded_share",
    "cost",
)

_HELP = {
    "machine": "a preset ({presets}), a file that --measure wrote, or an engine's calibration.json",
    "replicas": "engines behind the balancer",
    "router": f"who gets a request: {', '.join(ROUTERS)}",
    "balance": "with hash: in flight at a replica over the mean, at most",
    "cache_bytes": "reference cache of each replica",
    "shared_bytes": "reference cache that all replicas share (Redis); 0 for none",
    "people": "references that are asked for",
    "zipf": "exponent of their popularity; 0 makes all alike",
    "rate": "requests a second for each replica, Poisson",
    "callers": "instead of a rate: callers for each replica who wait for their answers",
    "steps": "numbers of steps, comma separated, drawn with equal chances",
    "guided": "share of requests with guidance",
    "referenced": "share of requests with a reference",
    "newcomers": "share of these whose reference was never seen before",
    "batch": "share of requests of low priority",
    "deadline": "seconds that a request may take; 0 for no deadline",
    "seconds": "virtual time that counts",
    "warmup": "virtual time before it",
    "history": "seconds that the fleet has run before, which fills the caches",
    "price": "of a replica for an hour",
    "slo": "service level in seconds; 0 for three times what each request takes alone",
    "seed": "of everything that is drawn",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command, one for each field of a study among them."""
    parser.set_defaults(run=run)
    for field in fields(Study):
        text = _HELP[field.name].replace("{presets}", ", ".join(presets()))
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            default=str(field.default),
            metavar="VALUE",
            help=f"{text} (default {field.default})",
        )
    parser.add_argument("--sweep", nargs=2, metavar=("FIELD", "VALUES"), help="vary one of the above: 1,3,10")
    parser.add_argument(
        "--series", nargs=2, metavar=("FIELD", "VALUES"), help="a curve for each of these values"
    )
    parser.add_argument(
        "--measure",
        type=Path,
        metavar="FILE",
        help="measure this machine first, write it there and simulate it",
    )
    parser.add_argument(
        "--validate",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="compare with real runs, on one replica of --machine",
    )
    parser.add_argument("--output", type=Path, help="where the figures go as JSON")
    parser.add_argument("--plot", type=Path, help="where the plot of a sweep goes, SVG or PNG")
    parser.add_argument(
        "--show", default=",".join(SHOWN), help=f"measures to print and plot: {', '.join(MEASURES)}"
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; return 0, 1 where a validation does not hold, 2 for wrong options."""
    try:
        return _run(options)
    except SimulationError as error:
        sys.stderr.write(f"simulate: {error}\n")
        return 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m loadtests simulate", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(arguments))


def _run(options: argparse.Namespace) -> int:
    study = Study()
    for field in fields(Study):
        study = study.with_value(field.name, getattr(options, field.name))
    if options.measure:
        # Loads torch and the model; nothing else of the simulator needs them.
        from loadtests.simulator.measure import measure

        measure(options.measure)
        study = study.with_value("machine", str(options.measure))
    if options.validate:
        machine = read_machine(study.machine)
        comparisons = [validate(read_run(path), machine) for path in options.validate]
        print(table(comparisons))
        _write(options.output, {"comparisons": [msgspec.to_builtins(asdict(one)) for one in comparisons]})
        return 0 if all(one.holds for one in comparisons) else 1
    measures = options.show.split(",")
    for name in measures:
        if name not in MEASURES:
            raise SimulationError("show", f"{name} is none of {', '.join(MEASURES)}")
    if options.sweep is None:
        if options.plot or options.series:
            raise SimulationError("sweep", "a plot needs values to vary")
        summary = study.run()
        _write(options.output, {"study": asdict(study), "summary": asdict(summary)})
        print("\n".join(f"{MEASURES[name].label:48} {_text(summary, name)}" for name in measures))
        return 0
    sweep = _sweep(study, options)
    points: list[Point] = []
    print("| " + " | ".join([sweep.series_field or "", sweep.field, *measures, "took, s"]) + " |")
    print("|---" * (len(measures) + 3) + "|")
    for point in sweep.run():
        points.append(point)
        cells = [
            point.series,
            point.x,
            *(_text(point.summary, name) for name in measures),
            f"{point.took:.1f}",
        ]
        print("| " + " | ".join(cells) + " |", flush=True)
    _write(options.output, sweep.to_dict(points))
    if options.plot:
        draw(sweep, points, measures, options.plot)
    return 0


def _sweep(study: Study, options: argparse.Namespace) -> Sweep:
    field, values = options.sweep
    if options.plot:
        _check_axis(field, values.split(","))
    series_field, series = options.series or ("", "")
    return Sweep(
        study=study,
        field=field.replace("-", "_"),
        values=values.split(","),
        series_field=series_field.replace("-", "_"),
        series=series.split(","),
    )


def _check_axis(field: str, values: Sequence[str]) -> None:
    """Raise SimulationError for a value that has no place on the x axis of a plot."""
    for text in values:
        try:
            float(text)
        except ValueError:
            raise SimulationError(
                "plot", f"{field} {text!r} is not a number; only --series may be other than numbers"
            ) from None


def _text(summary: Summary, measure: str) -> str:
    number = MEASURES[measure].factor * value(summary, measure)
    return f"{number:.3g}" if abs(number) < 1000 else f"{number:.0f}"


def _write(path: Path | None, data: dict[str, Any]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_finite(data), indent=1) + "\n", encoding="utf-8")


def _finite(data: Any) -> Any:
    """Return data in which what is not a number is null, as JSON wants it."""
    if isinstance(data, dict):
        return {key: _finite(item) for key, item in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(item) for item in data]
    return None if isinstance(data, float) and not isfinite(data) else data
