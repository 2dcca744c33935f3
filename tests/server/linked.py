"""An engine link on a fake engine, and the jobs that tests give it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import structlog

from engine.protocol.framing import Frame
from engine.protocol.messages import Finished, ImageReady, Submit
from server.engine_link.engine import Engine
from server.engine_link.link import EngineLink
from server.engine_link.supervisor import SupervisorOptions
from server.errors import (
    LimnerError,
)
from server.metrics.observer import ServerMetrics
from tests.server.fake_engine import FakeLauncher, Script


def submit(job_id: str, prompt: str = "a sailor", *, images: int = 1, steps: int = 3) -> Submit:
    return Submit(
        job_id=job_id,
        prompt=prompt,
        negative_prompt="",
        sampler="ddim",
        steps=steps,
        guidance_scale=3.0,
        guidance_rescale=0.0,
        ip_adapter_scale=1.0,
        width=64,
        height=64,
        seeds=tuple(range(10, 10 + images)),
        progress=True,
    )


class Linked:
    def __init__(
        self, link: EngineLink, script: Script, launcher: FakeLauncher, logs: list[dict[str, Any]]
    ) -> None:
        self.link, self.script, self.launcher, self.logs = link, script, launcher, logs
        self.readiness: list[bool] = []
        self.changed = asyncio.Event()

    def on_readiness(self, ready: bool) -> None:
        self.readiness.append(ready)
        self.changed.set()

    def patiently(self) -> None:
        """Have no further engine killed for being slow."""
        self.link.engines[0]._supervisor._options = SupervisorOptions(
            stall_timeout=0, restart_delay=0.001, restart_delay_max=0.004
        )

    async def until_ready(self) -> None:
        while not self.link.is_ready:
            self.changed.clear()
            await self.changed.wait()

    async def job(self, message: Submit, deadline: float | None = None) -> list[Any]:
        """Run a job to its end; return its messages. Raises what ended it."""
        inbox: asyncio.Queue[object] = asyncio.Queue()
        news: list[Any] = []
        with self.link.run(message, np.ones((4, 8), np.float32), deadline=deadline, inbox=inbox):
            while True:
                item = await inbox.get()
                if isinstance(item, LimnerError):
                    raise item
                assert isinstance(item, Frame)
                news.append(item.message)
                if isinstance(item.message, Finished):
                    return news


@asynccontextmanager
async def linked(
    script: Script | None = None, *, wait: bool = True, patience: float = 60, **options: Any
) -> AsyncIterator[Linked]:
    script = script or Script()
    logs: list[dict[str, Any]] = []

    def keep(_: Any, level: str, event: dict[str, Any]) -> str:
        logs.append(event)
        raise structlog.DropEvent

    log = structlog.wrap_logger(
        None, processors=[keep], wrapper_class=structlog.make_filtering_bound_logger(0)
    )
    launcher = FakeLauncher(script)
    engine = Engine(
        launcher,
        observer=ServerMetrics(version="0"),
        log=log,
        options=SupervisorOptions(**({"restart_delay": 0.001, "restart_delay_max": 0.004} | options)),
    )
    link = EngineLink(
        [engine], log=log, on_readiness=lambda ready: outer.on_readiness(ready), patience=patience
    )
    outer = Linked(link, script, launcher, logs)
    link.start()
    if wait:
        await outer.until_ready()
    try:
        yield outer
    finally:
        await link.stop()


def images(news: list[Any]) -> list[tuple[int, int]]:
    return [(message.index, message.seed) for message in news if isinstance(message, ImageReady)]
