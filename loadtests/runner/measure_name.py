"""The name of a measure: what an expectation asks of `Figures`, checked by their types before there are any."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from loadtests.runner.measures import STAGES, Figures
from loadtests.runner.target import Status

KEYS: Mapping[str, Collection[str]] = MappingProxyType(
    {"statuses": tuple(Status), "by_cache": ("hit", "miss", "coalesced", "none"), "stages": STAGES}
)
"""What these tables may have; reasons of refusals and messages of errors are the server's."""


def measure_problem(measure: str) -> str | None:
    """Say what is wrong with a name such as ``latency.p99``; None where it is one number's."""
    kind: Any = Figures
    above = ""
    for part in measure.split("."):
        known, below = _parts(kind, above, part)
        if part not in known:
            limit = f"is none of {', '.join(known)}" if known else f"cannot be, as {above} is a number"
            return f"the figure {part!r} {limit}"
        kind, above = below, part
    return f"{above} is no number but several" if _is_several(kind) else None


def _parts(kind: Any, above: str, part: str) -> tuple[Collection[str], Any]:
    """Return the names that may follow, and the type of what `part` names; of a number nothing follows."""
    if get_origin(kind) is dict:
        return KEYS.get(above, (part,)), get_args(kind)[1]
    fields = get_type_hints(kind) if _is_several(kind) else {}
    return fields, fields.get(part)


def _is_several(kind: Any) -> bool:
    return get_origin(kind) is dict or (isinstance(kind, type) and issubclass(kind, msgspec.Struct))
