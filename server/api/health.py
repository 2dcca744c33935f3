"""grpc.health.v1: one service name each for liveness and readiness, and one for each service.

grpc_health's own asyncio servicer forgets all watchers of a service when one of them leaves, lets a slow watcher hold
up a change of status, and its watches outlast a graceful stop; hence this one.
https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

LIVENESS = "liveness"
READINESS = "readiness"

Status = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """``liveness`` serves from the start; ``readiness``, ``""`` and ``services`` while every engine takes work."""

    def __init__(self, services: Iterable[str]) -> None:
        self._follows_readiness = (READINESS, "", *services)
        self._statuses = dict.fromkeys(self._follows_readiness, Status.NOT_SERVING) | {
            LIVENESS: Status.SERVING
        }
        self._changed = asyncio.Event()
        self._closed = False

    @property
    def is_ready(self) -> bool:
        """Whether readiness serves."""
        return bool(self._statuses[READINESS] == Status.SERVING)

    def set_ready(self, is_ready: bool) -> None:
        """Change readiness."""
        status = Status.SERVING if is_ready else Status.NOT_SERVING
        self._statuses.update(dict.fromkeys(self._follows_readiness, status))
        self._wake()

    def close(self) -> None:
        """End every watch, so that the server can stop."""
        self._closed = True
        self._wake()

    async def Check(  # noqa: N802 - the name in the proto
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """Return the status; NOT_FOUND for a service that is not known, as the protocol has it."""
        status = self._statuses.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return Status(status=status)

    async def Watch(  # noqa: N802 - the name in the proto
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> None:
        """Tell the status now and whenever it changes; SERVICE_UNKNOWN for a service that is not known."""
        told = None
        while not self._closed:
            changed = self._changed
            status = self._statuses.get(request.service, Status.SERVICE_UNKNOWN)
            if status != told:
                await context.write(Status(status=status))
                told = status
            await changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
