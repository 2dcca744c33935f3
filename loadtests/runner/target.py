"""The target: whatever answers planned requests, so that one runner drives Limner and its peers alike."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from loadtests.runner.request import PlannedRequest


class Status(StrEnum):
    """What became of a request. `UNFINISHED` had no answer when the run was over and was given up."""

    OK = "ok"
    REFUSED = "refused"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    FAILED = "failed"
    UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """Where the server says that the time went, in seconds; what a target does not know stays 0."""

    reference: float = 0.0
    queue: float = 0.0
    prompt: float = 0.0
    denoise: float = 0.0
    decode: float = 0.0
    encode: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a target answered.

    reason: the error's name; empty with `Status.OK`.
    retry_after: seconds that a refusal asks to wait; None when it does not say.
    pictures: these images as they came, encoded; no record keeps them.
    cache: "hit", "miss" or "coalesced" of the reference; None without one, or where the target does not tell.
    resent: the picture had to be sent after all, as the target did not know its digest.
    batch_rows: mean useful rows of the UNet calls that the request ran in; None where the target does not tell.
    """

    status: Status
    reason: str = ""
    message: str = ""
    retry_after: float | None = None
    images: int = 0
    pictures: tuple[bytes, ...] = field(default=(), repr=False)
    cache: str | None = None
    resent: bool = False
    stages: Stages | None = None
    batch_rows: float | None = None


class Target(Protocol):
    """Answers requests. The runner measures the time, cancels the task of a call that is to be cancelled, and opens
    and closes the target as its context.
    """

    async def prepare(self, people: Iterable[int]) -> None:
        """Make the references of these people known, untimed. Raises TargetError."""

    async def call(self, request: PlannedRequest) -> Outcome:
        """Send a request and wait for its answer; a failed call is an outcome, never an exception."""
