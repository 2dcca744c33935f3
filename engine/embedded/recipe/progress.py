"""Time, log and plot a training run; its learning rate follows the clock, not the step count."""

import csv
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageDraw
from tqdm import tqdm


@dataclass(slots=True, kw_only=True)
class Progress:
    """Drive one stage for a budget of wall-clock minutes.

    A shared machine slows down without warning: with the clock as the schedule, the learning rate still
    reaches its floor when the budget ends. `spent_seconds` is what earlier, interrupted runs used.
    """

    name: str
    minutes: float
    directory: Path
    step: int = 0
    share: float = 0.0
    spent_seconds: float = 0.0
    _curve: list[tuple[int, float, float]] = field(default_factory=list)
    _smooth: float | None = None
    _last_loss: float = math.nan
    _started: float = 0.0

    def elapsed(self) -> float:
        """Return seconds of training so far, earlier runs included."""
        return self.spent_seconds + time.monotonic() - self._started

    def clock_share(self) -> float:
        """Return the share of the budget that this clock says is used, 0 to 1."""
        return min(1.0, self.elapsed() / (60 * self.minutes))

    def steps(self, *, quiet: bool = False) -> Iterator[int]:
        """Yield step numbers until `share` reaches 1, with a progress bar unless `quiet`.

        The loop's body sets `share`, so that workers which agreed on one value stop together.
        """
        self._started = time.monotonic()
        with tqdm(desc=self.name, initial=self.step, mininterval=10, disable=quiet) as bar:
            while self.share < 1.0:
                yield self.step
                self.step += 1
                bar.update()
                bar.set_postfix(loss=f"{self._smooth or 0:.4f}", share=f"{self.share:.0%}", refresh=False)

    def rate(self, peak: float, *, warmup_steps: int = 100) -> float:
        """Return the learning rate now: linear warm-up, then a cosine over the budget."""
        warm = min(1.0, (self.step + 1) / warmup_steps)
        return warm * peak * 0.5 * (1 + math.cos(math.pi * self.share))

    def record(self, loss: float, *, every: int = 25) -> None:
        """Take in a loss; every so often append it to the CSV and redraw the curve."""
        self._smooth = loss if self._smooth is None else 0.98 * self._smooth + 0.02 * loss
        if self.step % every == 0:
            self._curve.append((self.step, self.elapsed(), self._smooth))
            self.directory.mkdir(parents=True, exist_ok=True)
            with (self.directory / f"{self.name}.csv").open("a", newline="") as file:
                csv.writer(file).writerow([self.step, f"{self.elapsed():.1f}", f"{self._smooth:.6f}"])
            if self.step % (20 * every) == 0:
                self._plot()

    def _plot(self) -> None:
        width, height, pad = 480, 240, 20
        image = Image.new("RGB", (width, height), "white")
        draw = ImageDraw.Draw(image)
        losses = [math.log(max(1e-9, point[2])) for point in self._curve]
        low, high, last = min(losses), max(losses) + 1e-6, max(1, self._curve[-1][0] - self._curve[0][0])
        line = [
            (
                pad + (width - 2 * pad) * (point[0] - self._curve[0][0]) / last,
                pad + (height - 2 * pad) * (high - loss) / (high - low),
            )
            for point, loss in zip(self._curve, losses, strict=True)
        ]
        if len(line) > 1:
            draw.line(line, fill=(40, 90, 200), width=2)
        draw.text(
            (pad, 4),
            f"{self.name}: log loss {low:.2f} .. {high:.2f}, step {self._curve[-1][0]}",
            fill="black",
        )
        image.save(self.directory / f"{self.name}.png")
