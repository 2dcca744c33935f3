"""``python -m loadtests COMMAND``: what is run against a fleet that exists, or in the place of one that does not."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from loadtests.runner import command_compare, command_export, command_k6, command_run
from loadtests.runner.errors import LoadTestError
from loadtests.simulator import command as command_simulate

# Each has `add_arguments`, which sets `run`: a function of the parsed options that returns the exit status.
COMMANDS = {
    "run": (command_run, "send a scenario to a server and report"),
    "k6": (command_k6, "send one plan with our generator and with k6, and compare"),
    "compare": (command_compare, "put two reports side by side"),
    "export": (command_export, "write a run for the simulator's validation"),
    "simulate": (command_simulate, "a fleet in virtual time"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0, 1 where what a scenario expects does not hold, 2 for wrong input."""
    parser = argparse.ArgumentParser(prog="python -m loadtests", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (command, what) in COMMANDS.items():
        command.add_arguments(commands.add_parser(name, help=what, description=command.__doc__))
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(options)
    except LoadTestError as error:
        sys.stderr.write(f"loadtests: {error}\n")
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())
