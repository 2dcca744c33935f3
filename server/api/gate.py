"""How many calls are in flight, and whether new ones are taken."""

from __future__ import annotations

import asyncio

from server.errors import DrainingError


class Gate:
    """Counts the calls in flight, and refuses new ones once it is closed."""

    def __init__(self) -> None:
        self._in_flight = 0
        self._closed = False
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def in_flight(self) -> int:
        """Calls that have begun and not ended."""
        return self._in_flight

    @property
    def is_closed(self) -> bool:
        """Whether new calls are refused."""
        return self._closed

    def close(self) -> None:
        """Refuse new calls from here on."""
        self._closed = True

    def check(self) -> None:
        """Raise ``DrainingError`` when it is closed."""
        if self._closed:
            raise DrainingError

    def enter(self) -> None:
        """Count one in."""
        self._in_flight += 1
        self._empty.clear()

    def leave(self) -> None:
        """Count one out."""
        self._in_flight -= 1
        if not self._in_flight:
            self._empty.set()

    async def wait_until_empty(self) -> None:
        """Wait until no call is in flight."""
        await self._empty.wait()
