"""A progress line for people; nothing where nobody looks."""

import sys
from typing import TextIO

from limner_client.events import Event, ImageReady, Progress, Queued

WIDTH = 30


class ProgressLine:
    """Draws one line that is drawn over again; silent unless `out` is a terminal."""

    def __init__(self, out: TextIO = sys.stderr) -> None:
        self._out = out
        self._shows = out.isatty()
        self._drawn = 0

    def show(self, event: Event) -> None:
        """Draw what the event says."""
        text = line(event)
        if self._shows and text:
            self._out.write(f"\r{text:<{self._drawn}}")
            self._out.flush()
            self._drawn = len(text)

    def clear(self) -> None:
        """Wipe the line."""
        if self._drawn:
            self._out.write(f"\r{'':<{self._drawn}}\r")
            self._out.flush()
            self._drawn = 0


def line(event: Event) -> str:
    """Say in one line what an event means; empty when it means nothing to a person who waits."""
    match event:
        case Queued():
            return f"queued, {event.position} ahead, done in about {event.finishes_in_seconds:.1f} s"
        case Progress():
            done = WIDTH * event.step // max(event.steps, 1)
            return f"[{'#' * done}{'.' * (WIDTH - done)}] step {event.step} of {event.steps}"
        case ImageReady():
            return f"image {event.image.index} ready"
    return ""
