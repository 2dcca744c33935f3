"""Find the text field that made a message unreadable: protobuf only says that parsing failed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from server.errors import FieldViolation

MAX_DEPTH = 8


def text_violation(descriptor: Descriptor, data: bytes) -> FieldViolation | None:
    """Return the first string field that is not UTF-8, by its path; None when that is not what is wrong.

    Wire format: https://protobuf.dev/programming-guides/encoding/
    """
    try:
        return next(_faults(descriptor, data, "", MAX_DEPTH), None)
    except (IndexError, ValueError):
        return None


def _faults(descriptor: Descriptor, data: bytes, prefix: str, depth: int) -> Iterator[FieldViolation]:
    for number, value in _delimited_fields(data):
        field: Any = descriptor.fields_by_number.get(number)
        if field is None:
            continue
        path = f"{prefix}{field.name}"
        if field.type == FieldDescriptor.TYPE_STRING:
            try:
                value.decode("utf-8")
            except UnicodeDecodeError as error:
                yield FieldViolation(
                    field=path,
                    problem=f"is not UTF-8: byte 0x{value[error.start]:02x} at offset {error.start}",
                    limit="the limit is valid UTF-8",
                )
        elif field.type == FieldDescriptor.TYPE_MESSAGE and depth:
            yield from _faults(field.message_type, value, f"{path}.", depth - 1)


def _delimited_fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of each length-delimited field. Raises ``ValueError`` and ``IndexError``."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        match tag & 7:
            case 0:
                _, at = _varint(data, at)
            case 1:
                at += 8
            case 5:
                at += 4
            case 2:
                length, at = _varint(data, at)
                if at + length > len(data):
                    raise ValueError("a field reaches beyond the message")
                yield tag >> 3, data[at : at + length]
                at += length
            case kind:
                raise ValueError(f"wire type {kind}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a varint of more than 10 bytes")
