"""A reference's way to its tokens, as spans."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from server.references.record import ResolvedReference
from server.tracing.trace import current_trace

Note = Callable[[ResolvedReference], ResolvedReference]


@contextmanager
def reference_stage(field: str) -> Iterator[Note]:
    """Trace the block as the look-up of the reference in a field; the function that it gets notes what came of it."""
    with current_trace().stage("limner.reference", {"limner.field": field}) as trace:

        def note(resolved: ResolvedReference) -> ResolvedReference:
            trace.note({"limner.cache": resolved.outcome.value})
            return resolved

        yield note


def reference_work(stage: str, seconds: float, **numbers: int) -> None:
    """Trace ``seconds`` of work for the present reference that have just ended."""
    now = time.monotonic()
    attributes = {f"limner.{name}": number for name, number in numbers.items()}
    current_trace().past(f"limner.{stage}", began=now - seconds, ended=now, attributes=attributes)
