"""Put two reports side by side: their figures and the ratios of the second to the first."""

from __future__ import annotations

import argparse
from pathlib import Path

from loadtests.runner.compare import table
from loadtests.runner.report import read_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.set_defaults(run=run)
    parser.add_argument("first", type=Path, metavar="A.json")
    parser.add_argument("second", type=Path, metavar="B.json")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    print(
        table(
            read_report(options.first), read_report(options.second), (str(options.first), str(options.second))
        )
    )
    return 0
