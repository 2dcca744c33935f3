from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.server.running import Serving, run_server


@pytest.fixture
async def serving() -> AsyncIterator[Serving]:
    async with run_server() as running:
        yield running
