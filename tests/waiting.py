"""Waiting for what another process or thread does, and nothing tells of."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 120.0
POLL_SECONDS = 0.02


def until(
    condition: Callable[[], object], complaint: str = "it never happened", patience: float = PATIENCE
) -> None:
    """Wait for a state. Fails with the complaint when it does not come within ``patience`` seconds."""
    ends = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < ends, f"{complaint} after {patience:.0f} s"
        time.sleep(POLL_SECONDS)
