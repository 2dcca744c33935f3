"""What a load test refuses."""

from __future__ import annotations

from pathlib import Path


class LoadTestError(Exception):
    """Is the base of what ends a load test before or without results; its text is for a person."""


class ScenarioError(LoadTestError, ValueError):
    """A scenario file is wrong: names the file, the key and the limit."""

    def __init__(self, file: str | Path, key: str, problem: str) -> None:
        super().__init__(f"{file}: {key}: {problem}")
        self.file = str(file)
        self.key = key
        self.problem = problem


class ReportError(LoadTestError, ValueError):
    """A file of results cannot be read, or has no such figure."""


class TargetError(LoadTestError):
    """A target cannot be prepared or calibrated, so that there is nothing to measure."""


class ToolError(LoadTestError):
    """A program from outside is missing or failed."""
