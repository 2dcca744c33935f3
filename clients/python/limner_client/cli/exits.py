"""Exit codes of the `limner` command."""

from limner_client import errors

OK = 0
FAILED = 1
BAD_REQUEST = 2
NOT_FOUND = 3
OVERLOADED = 4
UNAVAILABLE = 5
DEADLINE = 6
INTERRUPTED = 130

HELP = """exit codes:
  0    done
  1    the server failed, or (health) it is not ready
  2    bad usage, an unusable file, or a request that the server found invalid
  3    no such reference or model
  4    the server is overloaded; try later
  5    the server cannot be reached, or is draining
  6    the deadline passed
  130  interrupted (Ctrl-C); the server was told to stop"""

_BY_ERROR: tuple[tuple[type[errors.LimnerError], int], ...] = (
    (errors.InvalidRequest, BAD_REQUEST),
    (errors.ReferenceNotFound, NOT_FOUND),
    (errors.ModelNotFound, NOT_FOUND),
    (errors.Overloaded, OVERLOADED),
    (errors.Unavailable, UNAVAILABLE),
    (errors.DeadlineExceeded, DEADLINE),
)


def exit_code(error: errors.LimnerError) -> int:
    """Give the exit code for a failed call."""
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), FAILED)
