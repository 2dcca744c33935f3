"""Checks of single values; each finding names the field, the value's problem and the limit."""

from __future__ import annotations

import unicodedata
from enum import Enum
from math import isfinite
from typing import Any, TypeVar

from server.errors import FieldViolation, InvalidFieldsError

E = TypeVar("E", bound=Enum)


class Findings:
    """Collects every violation of a request, so that a caller hears of all of them at once."""

    def __init__(self) -> None:
        self._violations: list[FieldViolation] = []

    def add(self, field: str, problem: str, limit: str) -> None:
        """Note a violation."""
        self._violations.append(FieldViolation(field=field, problem=problem, limit=limit))

    def raise_any(self) -> None:
        """Raise ``InvalidFieldsError`` if anything was noted."""
        if self._violations:
            raise InvalidFieldsError(self._violations)

    def number(self, field: str, value: float, low: float, high: float, unit: str = "") -> None:
        """Check that ``value`` is finite and within ``low`` to ``high``."""
        if not isfinite(value):
            self.add(field, f"is {value}, not a finite number", _range(low, high, unit))
        elif not low <= value <= high:
            self.add(field, f"is {value}", _range(low, high, unit))

    def text(self, field: str, value: str, max_characters: int) -> None:
        """Check that ``value`` has at most ``max_characters`` code points and no control characters.

        One that is too long is not read: that could take seconds.
        """
        if len(value) > max_characters:
            self.add(field, f"has {len(value)} characters", f"the limit is {max_characters}")
            return
        position = next((i for i, c in enumerate(value) if unicodedata.category(c) == "Cc"), None)
        if position is not None:
            name = f"U+{ord(value[position]):04X}"
            self.add(
                field, f"has the control character {name} at position {position}", "the limit is none of them"
            )

    def size(self, field: str, value: int, *, multiple: int, low: int, high: int) -> None:
        """Check a width or a height in pixels."""
        limit = f"the limit is a multiple of {multiple} from {low} to {high} pixels"
        if not low <= value <= high:
            self.add(field, f"is {value}", limit)
        elif value % multiple:
            self.add(field, f"is {value}, not a multiple of {multiple}", limit)


def known(findings: Findings, field: str, value: Any, kind: type[E], default: E) -> E:
    """Return ``value`` if it is a member of ``kind``, and the default where it was left out or is unknown."""
    if value is None:
        return default
    if isinstance(value, kind):
        return value
    names = ", ".join(member.name for member in kind)
    findings.add(field, f"is the number {value}, which has no meaning here", f"the limit is one of {names}")
    return default


def _range(low: float, high: float, unit: str) -> str:
    return f"the limit is {_plain(low)} to {_plain(high)}{f' {unit}' if unit else ''}"


def _plain(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)
