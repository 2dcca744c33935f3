"""Scalars and enums between Python and protobuf."""

from enum import StrEnum
from typing import Any, TypeVar

E = TypeVar("E", bound=StrEnum)


def to_enum(proto_enum: Any, prefix: str, value: StrEnum | str) -> int:
    """Give the number of the enum value named `value`. Raises ValueError that lists the values there are."""
    name = prefix + value.upper()
    numbers: dict[str, int] = dict(proto_enum.items())
    if name not in numbers or name.endswith("_UNSPECIFIED"):
        known = sorted(key.removeprefix(prefix).lower() for key, number in numbers.items() if number)
        kind = prefix.rstrip("_").replace("_", " ").lower()
        raise ValueError(f"{value!s} is no {kind}; there are {', '.join(known)}")
    return numbers[name]


def from_enum(proto_enum: Any, prefix: str, number: int, cls: type[E]) -> E:
    """Give the member for an enum number; one that this client does not know is `UNKNOWN`."""
    if number not in proto_enum.values():
        return cls("unknown")
    name = str(proto_enum.Name(number)).removeprefix(prefix).lower()
    return cls(name) if name in set(cls) else cls("unknown")


def from_float(value: float) -> float:
    """Give a float32 field as the decimal that was meant: 0.6, not 0.6000000238418579."""
    return float(f"{value:.7g}")
