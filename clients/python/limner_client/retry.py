"""When to try again, and after how long."""

from dataclasses import dataclass
from random import Random

from limner_client.errors import DeadlineInfeasible, LimnerError, Overloaded, Unavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Sets the retries of a call; all of them happen within the call's deadline.

    The wait before try n + 1 grows from `initial_seconds` by `multiplier` up to `max_seconds`, of which half
    is drawn at random. When the server names a wait (google.rpc.RetryInfo), that wait is kept in full and the
    drawn part comes on top, so that callers who were refused together do not return together.
    """

    max_attempts: int = 6
    initial_seconds: float = 0.2
    multiplier: float = 2.0
    max_seconds: float = 5.0

    def delay(self, error: LimnerError, *, attempt: int, remaining: float, random: Random) -> float | None:
        """Give the seconds to wait after the failed try number `attempt`, or None to give up."""
        if attempt >= self.max_attempts or not is_retryable(error):
            return None
        backoff = min(self.max_seconds, self.initial_seconds * self.multiplier ** (attempt - 1))
        drawn = random.uniform(0, backoff / 2)
        wait = drawn + (backoff / 2 if error.retry_after is None else error.retry_after)
        return wait if wait < remaining else None


NO_RETRY = RetryPolicy(max_attempts=1)


def is_retryable(error: LimnerError) -> bool:
    """Tell whether the same request may succeed later: refused with a time to come back, or out of reach.

    A deadline that was predicted to be missed only gets nearer with a wait, so the caller is told at once.
    """
    if isinstance(error, DeadlineInfeasible):
        return False
    return isinstance(error, Unavailable) or (isinstance(error, Overloaded) and error.retry_after is not None)
