"""Lines, figures and the time that is left of a run on a GPU."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Report:
    """Prints as it goes, keeps every figure, and writes them all as JSON after each section."""

    def __init__(self, output: Path | None, budget_seconds: float) -> None:
        self._output = output
        self._began = time.monotonic()
        self._budget = budget_seconds
        self.figures: dict[str, Any] = {}
        self.lines: list[str] = []
        self.failed = 0
        self.lacking: list[str] = []

    @property
    def left(self) -> float:
        """Seconds of the budget that are left."""
        return self._budget - (time.monotonic() - self._began)

    def say(self, text: str) -> None:
        """Print a line of progress."""
        print(f"[{time.monotonic() - self._began:6.1f} s] {text}", flush=True)

    def row(self, text: str) -> None:
        """Print a line that the last table repeats."""
        self.lines.append(text)
        self.say(text)
        # A run may be ended from outside at any moment.
        self.save()

    def check(self, name: str, passed: bool, figure: str) -> None:
        """Print and keep PASS or FAIL with its figure."""
        self.failed += not passed
        self.figures.setdefault("checks", {})[name] = {"passed": passed, "figure": figure}
        self.row(f"{'PASS' if passed else 'FAIL'} {name}: {figure}")

    def lacks(self, what: str) -> None:
        """Say what is not there; the rest goes on."""
        self.lacking.append(what)
        self.row(f"LACKS {what}")

    def section(self, name: str, run: Callable[[], None], *, seconds: float = 0.0) -> None:
        """Run a section unless less than so many seconds are left; an error in it is a FAIL and the rest goes on."""
        if self.left < seconds:
            self.row(f"SKIPPED {name}: {self.left:.0f} s left, about {seconds:.0f} s needed")
        else:
            self.say(f"-- {name}")
            try:
                run()
            except Exception as error:
                traceback.print_exc()
                self.check(name, False, f"{type(error).__name__}: {str(error)[:300]}")
        self.save()

    def save(self) -> None:
        """Write the figures so far."""
        if self._output is not None:
            self._output.parent.mkdir(parents=True, exist_ok=True)
            content = {"figures": self.figures, "lines": self.lines, "lacking": self.lacking}
            self._output.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")

    def end(self) -> int:
        """Print every row again, save, and return the exit status."""
        print("\n" + "\n".join(self.lines), flush=True)
        print(f"{self.failed} failed, {len(self.lacking)} lacking", flush=True)
        self.save()
        return 1 if self.failed else 0


def environment() -> dict[str, str]:
    """Return the card and the versions of what computes."""
    import torch

    found = {"torch": torch.__version__, "cuda": str(torch.version.cuda)}
    for name in (
        "diffusers",
        "transformers",
        "onnx",
        "onnxscript",
        "numpy",
        "tensorrt",
        "tensorrt_rtx_bindings",
    ):
        try:
            found[name] = str(__import__(name).__version__)
        except Exception as error:
            found[name] = f"not there ({type(error).__name__})"
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found["gpu"] = properties.name
        found["compute_capability"] = f"{properties.major}.{properties.minor}"
        found["gpu_memory_gib"] = f"{properties.total_memory / 2**30:.1f}"
    return found
