"""The settings of a portrait as inputs and parameters: read off ``PortraitSpec``, so that none is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from limner.v1.portrait_pb2 import PortraitSpec

from server.api.checks import Findings

APART = frozenset({"reference_image", "reference_digest", "references", "model"})
"""References are tensors of several elements; the model is named by the request itself."""

_DATATYPES = {
    FieldDescriptor.TYPE_STRING: "BYTES",
    FieldDescriptor.TYPE_ENUM: "BYTES",
    FieldDescriptor.TYPE_INT32: "INT32",
    FieldDescriptor.TYPE_INT64: "INT64",
    FieldDescriptor.TYPE_FLOAT: "FP32",
    FieldDescriptor.TYPE_BOOL: "BOOL",
}


MAX_NUMBER_CHARACTERS = 400
"""Of a number that is spelt out; a double's longest decimals have fewer, left of the point."""
_BEYOND = 1 << 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A field of ``PortraitSpec`` that an input of one element or a parameter sets. ``choices`` are an enum's."""

    name: str
    datatype: str
    bits: int
    choices: tuple[str, ...]
    prefix: str

    def assign(self, findings: Findings, field: str, spec: Message, value: Any) -> None:
        """Set it in a message that has its field, or find what is wrong. The native API checks what the value means.

        Numbers may be spelt out as text: older clients have no parameters with a fraction.
        """
        match self.datatype:
            case "BYTES":
                self._assign_text(findings, field, spec, value)
            case "BOOL" if isinstance(value, bool):
                setattr(spec, self.name, value)
            case "BOOL":
                findings.add(field, "is no boolean", "the limit is true or false")
            case _:
                self._assign_number(findings, field, spec, value)

    def _assign_text(self, findings: Findings, field: str, spec: Message, value: Any) -> None:
        try:
            text = value.decode() if isinstance(value, bytes) else value
        except UnicodeDecodeError as error:
            problem = f"is not UTF-8: byte 0x{value[error.start]:02x} at offset {error.start}"
            findings.add(field, problem, "the limit is valid UTF-8")
            return
        if not isinstance(text, str):
            findings.add(field, "is no text", "the limit is BYTES, or a string parameter")
        elif not self.choices:
            setattr(spec, self.name, text)
        elif text.upper() in self.choices:
            setattr(spec, self.name, f"{self.prefix}{text.upper()}")
        else:
            problem = f"is {text[:64]!r}, which has no meaning here"
            findings.add(field, problem, f"the limit is one of {', '.join(self.choices)}")

    def _assign_number(self, findings: Findings, field: str, spec: Message, value: Any) -> None:
        number = _number(value)
        if number is None:
            findings.add(field, "is no number", f"the limit is a number ({self.datatype})")
        elif self.datatype == "FP32":
            setattr(spec, self.name, float(number))
        elif not (isfinite(number) and number == int(number)):
            findings.add(field, f"is {number}", "the limit is a whole number")
        elif not -(1 << self.bits - 1) <= number < 1 << self.bits - 1:
            findings.add(field, f"is {number}", f"the limit is {self.bits} bits")
        else:
            setattr(spec, self.name, int(number))


def _number(value: Any) -> int | float | None:
    if isinstance(value, bytes | str):
        if len(value) > MAX_NUMBER_CHARACTERS:
            return None
        try:
            whole = int(value)
        except ValueError:
            whole = _BEYOND
        try:
            # A longer int than any field takes is a float, which has no bounds to break: infinity beyond its own.
            return whole if abs(whole) < _BEYOND else float(value)
        except ValueError:
            return None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _settings() -> Iterator[Setting]:
    for field in PortraitSpec.DESCRIPTOR.fields:
        datatype = _DATATYPES.get(field.type)
        if datatype is None or field.is_repeated or field.name in APART:
            continue
        names = [value.name for value in field.enum_type.values] if field.enum_type else []
        prefix = names[0].removesuffix("UNSPECIFIED") if names else ""
        yield Setting(
            name=field.name,
            datatype=datatype,
            bits=64 if datatype == "INT64" else 32,
            choices=tuple(name.removeprefix(prefix) for name in names[1:]),
            prefix=prefix,
        )


SETTINGS = {setting.name: setting for setting in _settings()}
