"""The command ``limner-server``."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from importlib import metadata

from structlog.typing import FilteringBoundLogger

from server.app import App
from server.config import Config, ConfigError, load
from server.config.models import served_models
from server.engine_link.arguments import engine_arguments
from server.engine_link.launcher import Launcher, ProcessLauncher
from server.imaging.decode import settle_pillow_warnings
from server.logs import configure_logging
from server.ports import BindError

BAD_CONFIGURATION = 2
CANNOT_LISTEN = 3
ENGINE_CANNOT_START = 4


def main(arguments: Sequence[str] | None = None, launcher: Launcher | None = None) -> int:
    """Run the server until a signal ends it; return the exit status. ``launcher`` starts engines of another kind."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if "--version" in arguments:
        sys.stdout.write(f"limner-server {metadata.version('limner')}\n")
        return 0
    try:
        return _run(load(arguments, os.environ), launcher)
    except ConfigError as error:
        for problem in error.problems:
            sys.stderr.write(f"limner-server: {problem}\n")
        return BAD_CONFIGURATION


def _run(config: Config, launcher: Launcher | None) -> int:
    # gRPC's core writes text of its own to standard error, between the lines of our log.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    log = configure_logging(config.log)
    settle_pillow_warnings()
    launchers = [
        launcher or ProcessLauncher(engine_arguments(model.options, log_level=config.log.level))
        for model in served_models(config.engine)
    ]
    return asyncio.run(serve(config, launchers, log))


async def serve(config: Config, launchers: Sequence[Launcher], log: FilteringBoundLogger) -> int:
    """Serve until SIGTERM or SIGINT, which drain; a second one ends at once. Return the exit status."""
    app = App(config, launchers, log)
    signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, signals.put_nowait, number)
    try:
        await app.start()
    except (BindError, OSError) as error:
        log.error("cannot_listen", error=str(error))
        await app.stop(at_once=True)
        return CANNOT_LISTEN
    signalled = asyncio.create_task(signals.get())
    hopeless = asyncio.create_task(app.engines.wait_until_hopeless())
    await asyncio.wait([signalled, hopeless], return_when=asyncio.FIRST_COMPLETED)
    hopeless.cancel()
    if not signalled.done():
        signalled.cancel()
        await app.stop(at_once=True)
        return ENGINE_CANNOT_START
    log.info("signal", name=signalled.result().name)
    draining = asyncio.create_task(app.drain())
    insisting = asyncio.create_task(signals.get())
    await asyncio.wait([draining, insisting], return_when=asyncio.FIRST_COMPLETED)
    at_once = insisting.done()
    draining.cancel()
    insisting.cancel()
    await asyncio.wait([draining, insisting])
    await app.stop(at_once=at_once)
    return 0


if __name__ == "__main__":
    sys.exit(main())
