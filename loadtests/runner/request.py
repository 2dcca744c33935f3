"""The planned request: everything that is sent, and when."""

from __future__ import annotations

from typing import Literal

import msgspec

Priority = Literal["interactive", "batch"]


class PlannedRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request of a plan. Times in seconds.

    at: when it is to be sent, from the start of the load; in a closed loop the earliest moment, as a caller may
        still wait for the answer to the one before.
    stream, phase, turn: which part of the scenario it belongs to; turns of a phase count from 0.
    person: whose reference it shows, by number; None for a prompt alone.
    brings_picture: sends the picture itself, as callers do for somebody new; else its digest.
    deadline, cancel_after: seconds after it was to be sent; a target is handed what is left of the deadline.
    """

    number: int
    at: float
    stream: str
    phase: str
    turn: int = 0
    prompt: str
    seed: int
    person: int | None = None
    brings_picture: bool = False
    steps: int = 20
    sampler: str = "ddim"
    guidance_scale: float = 5.0
    ip_adapter_scale: float = 1.0
    width: int = 0
    height: int = 0
    images: int = 1
    format: str = "png"
    priority: Priority = "interactive"
    deadline: float | None = None
    cancel_after: float | None = None
