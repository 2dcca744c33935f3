"""Tasks that ask a target together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from loadtests.runner.errors import TargetError


@asynccontextmanager
async def asking() -> AsyncIterator[asyncio.TaskGroup]:
    """Give a group of tasks.

    Raises a bare ``TargetError``, in the words of the first, where the tasks raised nothing else; otherwise the group.
    """
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    # Not by `except*`: Python 3.11.2, which Debian 12 has, puts what is raised in one into a group.
    except ExceptionGroup as errors:
        refused, others = errors.split(TargetError)
        if refused is None or others is not None:
            raise
        raise TargetError(str(refused.exceptions[0])) from errors
