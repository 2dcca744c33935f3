"""What a test needs from outside: without it the test is skipped, or fails in CI, which leaves nothing out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest


def leave_out(problem: str) -> NoReturn:
    """Skip the test, or fail it in CI."""
    message = f"left out: {problem}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def need(tool: Path | str | None, name: str, fault: str = "") -> str:
    """Give a tool's path; leave the test out without it, or with a fault."""
    if tool is None or fault:
        leave_out(f"{fault or f'{name} is not installed'}; python -m tools.install says why")
    return str(tool)


@contextmanager
def needing(*missing: type[Exception]) -> Iterator[None]:
    """Leave the test out when one of these is raised inside."""
    try:
        yield
    except missing as error:
        leave_out(str(error))
