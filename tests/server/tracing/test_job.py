"""A job's stages are laid out only where somebody will see them."""

from __future__ import annotations

from typing import Any

import pytest

from engine.protocol.messages import Finished, Message, Started, Step
from server.tracing.job import JobTrace
from server.tracing.trace import NoTrace, TickSpan

LIFE: tuple[Message, ...] = (
    Started(job_id="j", queue_seconds=0.0),
    Step(job_id="j", step=1, steps=1),
    Finished(
        job_id="j",
        queue_seconds=0.0,
        encode_prompt_seconds=0.1,
        denoise_seconds=0.1,
        decode_seconds=0.1,
        mean_batch_rows=1.0,
        prompt_dropped="",
        negative_prompt_dropped="",
    ),
)


class Counted(NoTrace):
    """Counts the stages that it is told of."""

    def __init__(self, is_recorded: bool) -> None:
        self.is_recorded = is_recorded
        self.told: list[str] = []

    def past(self, name: str, **_: Any) -> None:
        self.told.append(name)


@pytest.mark.parametrize("is_recorded", [True, False])
def test_what_is_not_recorded_is_not_laid_out(is_recorded: bool) -> None:
    trace = Counted(is_recorded)
    job = JobTrace(trace)
    job.died()
    for message in LIFE:
        job.heard(message)
    job.ticked(TickSpan(ended=0.0, attributes={}, link=None))
    job.end("late")
    stages = ["queue", "queue", "encode_prompt", "denoise", "decode_latents"]
    assert trace.told == ([f"limner.{stage}" for stage in stages] if is_recorded else [])
