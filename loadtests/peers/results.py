"""What a comparison has come to so far: as tables for people, and everything as JSON."""

from __future__ import annotations

import json
import platform
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.files.replacement import replacing
from loadtests.peers.measure import ARRIVALS, SATURATED, part
from loadtests.peers.report import SideReport, table, targets
from loadtests.runner.scenario import Scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The reports of all sides, which grow while it runs, and what they are of; `scenarios` by load."""

    options: Namespace
    provenance: Mapping[str, str | int]
    scenarios: Mapping[str, Scenario]
    reports: Sequence[SideReport]
    begun: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """How long the comparison has taken."""
        return time.perf_counter() - self.begun

    def say(self, what: str) -> None:
        """Tell a person at the terminal what has been done."""
        print(f"{self.seconds:6.0f} s  {what}", flush=True)

    def write(self) -> None:
        """Put everything into the file that the options name; a reader finds it whole or as it was before."""
        out = self.options.out
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as draft:
            draft.write_text(json.dumps(self.to_json(), indent=1))

    def to_json(self) -> dict[str, Any]:
        """Return everything."""
        options = {
            name: value if isinstance(value, int | float | str | None) else str(value)
            for name, value in vars(self.options).items()
        }
        return {
            "options": options,
            "provenance": dict(self.provenance),
            "sides": [report.to_json() for report in self.reports],
        }

    def print_tables(self) -> None:
        """Print one table a load and the targets, of what there is."""
        print("\n".join(["", *self._head()]))
        by_name = {report.name: report for report in self.reports}
        first = next((each for each in self.reports if each.name.startswith("limner")), None)
        base = by_name.get("diffusers:float32")
        for load in self.scenarios:
            print(f"\n### {load}\n")
            print("\n".join(table(load, self.reports, first, base)))
        if found := targets(self.reports):
            print("\n| target | ratio (least to most) | wanted | met |\n|---|---|---|---|")
            print("\n".join(target.line() for target in found))

    def _head(self) -> list[str]:
        made = self.provenance
        run = f"{self.options.rounds} rounds, {self.seconds / 60:.0f} minutes in all"
        lines = [
            f"{made['date']}, {made['cpu']} ({platform.machine()}), {self.options.threads} threads; {run}"
        ]
        for scenario in self.scenarios.values():
            closed, opened = (part(scenario, phase).seconds for phase in (SATURATED, ARRIVALS))
            lines.append(
                f"{scenario.name}: saturated for about {closed:g} s, then arrivals for {opened:g} s; {scenario.about}"
            )
        return lines
