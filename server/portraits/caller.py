"""Who asks, how long they wait, and under which name the work is known."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A call. ``arrived`` and ``deadline`` are seconds of ``time.monotonic``; ``task_id`` names its generation."""

    tenant: str
    task_id: str
    arrived: float
    deadline: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewsWanted:
    """Which news the caller wants beside the pictures. ``preview_interval`` in steps; 0 for no previews.

    Each piece of news wakes everything between the engine's socket and the call: what nobody reads is not asked for.
    """

    progress: bool = False
    preview_interval: int = 0
