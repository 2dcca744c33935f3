"""What ends an engine process, and what ends one job."""

from __future__ import annotations

from dataclasses import dataclass

from engine.protocol.messages import FailureReason


class EngineError(Exception):
    """Base of the errors that end the process. The server starts another and replays what was in flight."""


class BackendBrokenError(EngineError):
    """The backend fails even on work that is known to be good."""


class ServerStalledError(EngineError):
    """The server has stopped reading while essential messages pile up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why one job, image, prompt or reference failed, alone."""

    reason: FailureReason
    message: str

    @classmethod
    def of(cls, error: BaseException) -> Fault:
        """Tell a numerical fault (``ArithmeticError``: values that are not finite) from any other."""
        numerical = isinstance(error, ArithmeticError)
        reason = FailureReason.NUMERICAL if numerical else FailureReason.INTERNAL
        return cls(reason=reason, message=f"{type(error).__name__}: {error}")
