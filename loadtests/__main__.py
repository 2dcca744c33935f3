"""``python -m loadtests COMMAND``: what is run against a fleet that exists, or in the place of one that does not."""

from __future__ import annotations

import argparse
import sys

from loadtests.simulator import command as simulate


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m loadtests", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    simulate.add_arguments(commands.add_parser("simulate", help="a fleet in virtual time"))
    options = parser.parse_args(arguments)
    status: int = options.run(options)
    return status


if __name__ == "__main__":
    sys.exit(main())
