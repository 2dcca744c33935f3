"""The API's enum values by the server's own names."""

from __future__ import annotations

from typing import Any, TypeVar, cast

E = TypeVar("E", bound=int)


def enum_value(kind: type[E], name: str) -> E:
    """Return the value of an enum of the API by its name without the prefix that all of its names have."""
    # To mypy the stubs' enums are classes; at run time they are wrappers around descriptors.
    wrapper: Any = kind
    prefix = wrapper.DESCRIPTOR.values[0].name.removesuffix("UNSPECIFIED")
    return cast(E, wrapper.Value(f"{prefix}{name}"))
