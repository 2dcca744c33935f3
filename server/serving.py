"""A server from its start to its end: signals drain it, and the exit status says how it went."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence

from structlog.typing import FilteringBoundLogger

from server.app import App
from server.config import Config
from server.engine_link.launcher import Launcher
from server.ports import BindError

CANNOT_LISTEN = 3
ENGINE_CANNOT_START = 4


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
