"""A loop on fakes that tests drive turn by turn, and the jobs and references they give it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch

from engine.config import EngineConfig
from engine.loop.decoding import DecodePlan
from engine.loop.loop import EngineLoop
from engine.loop.mailbox import Mail
from engine.loop.preview import LatentPreview
from engine.loop.warmup import Calibration
from engine.protocol.framing import Frame, Tensor, decode_payload, encode_frame, parse_header
from engine.protocol.messages import Message, Submit
from tests.engine.fakes import (
    BUCKETS,
    DECODE_SECONDS,
    SHAPE,
    TICK_SECONDS,
    TOKENS,
    WIDTH,
    FakeBackend,
    ListInbox,
    VirtualClock,
)

M = TypeVar("M", bound=Message)


class Bench:
    """A loop on fakes. Every message takes the way over the wire format."""

    def __init__(
        self,
        *,
        config: EngineConfig | None = None,
        plan: DecodePlan | None = None,
        capacity: int = 16,
        buckets: Sequence[int] = BUCKETS,
    ) -> None:
        self.clock = VirtualClock()
        self.backend = FakeBackend(clock=self.clock, capacity=capacity)
        self.inbox = ListInbox(self.clock)
        self.sent: list[Frame] = []
        self.loop = EngineLoop(
            backend=self.backend,
            buckets=buckets,
            calibration=Calibration(
                shape=SHAPE,
                tick_seconds={bucket: TICK_SECONDS[bucket] for bucket in buckets},
                decode_seconds=DECODE_SECONDS,
                decode_plan=plan or DecodePlan(batch=4, patience_ticks=2),
                preview=LatentPreview(weight=torch.eye(4)[:3] * 20, bias=torch.full((3,), 128.0)),
            ),
            config=config or EngineConfig(),
            inbox=self.inbox,
            emit=self.emit,
            clock=self.clock,
        )
        self.backend.calls.clear()
        self.idle_slots = set(self.backend.rows)

    def emit(self, message: Message, tensor: Tensor | None = None) -> None:
        self.sent.append(over_the_wire(message, tensor))

    def tell(self, message: Message, tensor: Tensor | None = None) -> None:
        self.inbox.put(Mail(over_the_wire(message, tensor), self.clock.now))

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.loop.turn()

    def finish(self, limit: int = 2000) -> None:
        """Turn until nothing is left to do."""
        for _ in range(limit):
            self.loop.turn()
            if not self.inbox.mails and not self.loop.busy:
                return
        raise AssertionError("the loop does not come to an end")

    def messages(self, kind: type[M]) -> list[M]:
        return [frame.message for frame in self.sent if isinstance(frame.message, kind)]

    def tensors(self, kind: type[Message]) -> list[Tensor]:
        return [
            frame.tensor
            for frame in self.sent
            if isinstance(frame.message, kind) and frame.tensor is not None
        ]

    def slots_held(self) -> int:
        return len(set(self.backend.rows) - self.idle_slots)


def over_the_wire(message: Message, tensor: Tensor | None = None) -> Frame:
    raw = b"".join(encode_frame(message, tensor))
    return decode_payload(parse_header(raw[:20]), raw[20:])


def job(job_id: str = "job", prompt: str = "a man", **changes: object) -> Submit:
    settings: dict[str, object] = {
        "job_id": job_id,
        "prompt": prompt,
        "negative_prompt": "",
        "sampler": "ddim",
        "steps": 4,
        "guidance_scale": 5.0,
        "guidance_rescale": 0.0,
        "ip_adapter_scale": 1.0,
        "width": 16,
        "height": 16,
        "seeds": (1,),
    }
    return Submit(**{**settings, **changes})  # type: ignore[arg-type]


def reference(*values: float, tokens: int = TOKENS) -> Tensor:
    """Return the tokens of references, each of one number."""
    each = np.array(values or (0.5,), dtype=np.float32)[:, None, None]
    return np.ascontiguousarray(np.broadcast_to(each, (len(each), tokens, WIDTH)))
