"""The doorman: looks at what arrives while the loop waits for the device."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Doorman:
    """A thread that has the loop's books while the loop is in the UNet or the decoder, and at no other time.

    Either takes longer than the answer "there is no time for this" may take. As the two never have the books at once,
    nothing in them is locked. ``waiting`` says whether there is anything to do; ``attend`` does one thing, and its last
    one is over before the loop has its books again.
    """

    def __init__(self, waiting: Callable[[], bool], attend: Callable[[], None]) -> None:
        self._waiting = waiting
        self._attend = attend
        self._changed = threading.Condition()
        self._lent = False
        self._attending = False
        self._dismissed = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="doorman", daemon=True)

    def start(self) -> None:
        """Start the thread. Without it the loop does everything itself, between its steps."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, if it was started."""
        with self._changed:
            self._dismissed = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def knock(self) -> None:
        """Say that something has come; any thread may. Between two steps nobody need wake up for it."""
        with self._changed:
            if self._lent:
                self._changed.notify_all()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Let the doorman have the books while the body runs; on the loop's thread."""
        with self._changed:
            self._lent = True
            if self._waiting():
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._lent = False
                self._changed.wait_for(lambda: not self._attending)

    def check(self) -> None:
        """Raise what ``attend`` raised, on the loop's thread; the doorman has ended then."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._has_something_to_do)
                if self._dismissed:
                    return
                self._attending = True
            try:
                self._attend()
            except Exception as error:
                self._error = error
                return
            finally:
                with self._changed:
                    self._attending = False
                    self._changed.notify_all()

    def _has_something_to_do(self) -> bool:
        return self._dismissed or (self._lent and self._waiting())
