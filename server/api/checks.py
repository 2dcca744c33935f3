"""Checks of single values; each finding names the field, the value's problem and the limit."""

from __future__ import annotations

import unicodedata
from enum import Enum
from math import isfinite
from typing import Any, TypeVar

from server.errors import FieldViolation, InvalidFieldsError

E = TypeVar("E", bound=Enum)

MAX_FINDINGS = 16
MAX_FINDINGS_BYTES = 2048
"""Told together. They travel in metadata, for which a caller's gRPC has 8 KB by default: base64 makes them longer by a
third, and the first three are there twice more. An answer that is too long would reach nobody."""
_MAX_FIELD, _MAX_PROBLEM, _MAX_LIMIT = 80, 160, 384


class Findings:
    """Collects the violations of a request, so that a caller hears of them at once: the first ones, and of how many
    others.
    """

    def __init__(self) -> None:
        self._violations: list[FieldViolation] = []
        self._bytes = 0
        self._more = 0

    def add(self, field: str, problem: str, limit: str) -> None:
        """Note a violation, cut short where a caller's own text makes it long."""
        violation = FieldViolation(
            field=_short(field, _MAX_FIELD),
            problem=_short(problem, _MAX_PROBLEM),
            limit=_short(limit, _MAX_LIMIT),
        )
        size = len(violation.field) + len(violation.description)
        if self._more or len(self._violations) >= MAX_FINDINGS or self._bytes + size > MAX_FINDINGS_BYTES:
            self._more += 1
            return
        self._bytes += size
        self._violations.append(violation)

    def raise_any(self) -> None:
        """Raise ``InvalidFieldsError`` if anything was noted."""
        if self._violations:
            raise InvalidFieldsError(self._violations, more=self._more)

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


def _short(text: str, most: int) -> str:
    """Return the text in ASCII, of which metadata make no more bytes, and not longer than ``most``."""
    if text.isascii() and len(text) <= most:
        return text
    plain = text[:most].encode("ascii", "backslashreplace").decode()
    return plain if len(text) <= most and len(plain) <= most else f"{plain[: most - 3]}..."


def _range(low: float, high: float, unit: str) -> str:
    return f"the limit is {_plain(low)} to {_plain(high)}{f' {unit}' if unit else ''}"


def _plain(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)
