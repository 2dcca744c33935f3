"""The command ``limner-server``."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from importlib import metadata

from server.config import Config, ConfigError, load
from server.config.models import served_models
from server.engine_link.arguments import engine_arguments
from server.engine_link.launcher import Launcher, ProcessLauncher
from server.imaging.decode import settle_pillow_warnings
from server.logs import configure_logging

BAD_CONFIGURATION = 2


def main(arguments: Sequence[str] | None = None, launcher: Launcher | None = None) -> int:
    """Run the server until a signal ends it; return the exit status. ``launcher`` starts engines of another kind."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if "--version" in arguments:
        sys.stdout.write(f"limner-server {metadata.version('limner')}\n")
        return 0
    warnings: list[str] = []
    try:
        return _run(load(arguments, os.environ, warn=warnings.append), launcher, warnings)
    except ConfigError as error:
        for problem in error.problems:
            sys.stderr.write(f"limner-server: {problem}\n")
        return BAD_CONFIGURATION


def _run(config: Config, launcher: Launcher | None, warnings: Sequence[str]) -> int:
    # gRPC's core writes text of its own to standard error, between the lines of our log: of each handshake that fails,
    # for one. It reads this when it is imported, and so only now is it.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from server.serving import serve

    log = configure_logging(config.log)
    for warning in warnings:
        log.warning("configuration", problem=warning)
    settle_pillow_warnings()
    launchers = [
        launcher or ProcessLauncher(engine_arguments(engine, log_level=config.log.level))
        for model in served_models(config.engine)
        for engine in model.engines
    ]
    return asyncio.run(serve(config, launchers, log))


if __name__ == "__main__":
    sys.exit(main())
