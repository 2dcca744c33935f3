"""Frames: everything survives the way, and nothing else gets through."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import sys
import threading

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings

from engine.protocol.channel import read_frame, write_frame
from engine.protocol.framing import (
    DTYPES,
    HEADER_BYTES,
    MAGIC,
    MAX_BODY_BYTES,
    PROTOCOL_VERSION,
    Frame,
    ProtocolError,
    Tensor,
    decode_payload,
    encode_frame,
    parse_header,
)
from engine.protocol.messages import AnyMessage, Cancel, ImageReady, Message, Shutdown, Step, Submit
from tests.engine.bench import job

tensors = hnp.arrays(
    st.sampled_from(DTYPES), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
)


def decode(raw: bytes) -> Frame:
    lengths = parse_header(raw[:HEADER_BYTES])
    return decode_payload(lengths, raw[HEADER_BYTES:])


def encoded(message: Message, tensor: Tensor | None = None) -> bytes:
    return b"".join(encode_frame(message, tensor))


@given(tensor=st.none() | tensors)
@settings(deadline=None)
def test_a_frame_survives_the_way(tensor: Tensor | None) -> None:
    message = ImageReady(job_id="jöb", index=3, seed=2**63 - 1)
    frame = decode(encoded(message, tensor))
    assert frame.message == message
    if tensor is None:
        assert frame.tensor is None
    else:
        assert frame.tensor is not None
        assert frame.tensor.dtype == tensor.dtype
        np.testing.assert_array_equal(frame.tensor, tensor)


def test_every_message_survives_the_way() -> None:
    kinds = msgspec.inspect.type_info(AnyMessage)
    assert isinstance(kinds, msgspec.inspect.UnionType)
    for kind in kinds.types:
        assert isinstance(kind, msgspec.inspect.StructType)
        values = {field.encode_name: _sample(field.type) for field in kind.fields}
        message = msgspec.convert(values | {"type": kind.tag}, AnyMessage)
        assert decode(encoded(message)).message == message


def _sample(kind: msgspec.inspect.Type) -> object:
    info = msgspec.inspect
    match kind:
        case info.StrType():
            return "text"
        case info.EnumType(cls=cls):
            return next(iter(cls))
        case info.IntType():
            return 7
        case info.FloatType():
            return 0.5
        case info.BoolType():
            return True
        case info.UnionType(types=types):
            return _sample(types[0])
        case info.StructType(fields=fields, tag=None):
            return {field.encode_name: _sample(field.type) for field in fields}
        case info.VarTupleType(item_type=item):
            return (_sample(item),)
        case info.TupleType(item_types=items):
            return tuple(_sample(item) for item in items)
        case info.DictType(value_type=value):
            return {"key": None if isinstance(value, info.AnyType) else _sample(value)}
        case _:
            raise AssertionError(kind)


def test_a_transposed_tensor_arrives_in_its_own_order() -> None:
    tensor = np.arange(12, dtype=np.float32).reshape(3, 4).T
    frame = decode(encoded(Shutdown(), tensor))
    np.testing.assert_array_equal(frame.tensor, tensor)


def test_a_contiguous_tensor_is_not_copied() -> None:
    tensor = np.zeros((64, 64, 3), np.uint8)
    _, raw = encode_frame(Shutdown(), tensor)
    assert np.shares_memory(np.frombuffer(raw, np.uint8), tensor)


def test_a_received_tensor_is_read_only() -> None:
    frame = decode(encoded(Shutdown(), np.zeros(3, np.float32)))
    assert frame.tensor is not None
    assert not frame.tensor.flags.writeable


def test_tensors_of_other_types_are_refused() -> None:
    with pytest.raises(ProtocolError, match="float64"):
        encode_frame(Shutdown(), np.zeros(3))


def test_another_version_is_refused_at_the_first_header() -> None:
    raw = bytearray(encoded(Shutdown()))
    raw[4] = PROTOCOL_VERSION + 1
    with pytest.raises(ProtocolError, match="version"):
        decode(bytes(raw))


def header(body: int, tensor: int, magic: bytes = MAGIC, zero: int = 0) -> bytes:
    return struct.pack("<4sHHIQ", magic, PROTOCOL_VERSION, zero, body, tensor)


@pytest.mark.parametrize(
    "raw",
    [
        header(0, 0, magic=b"HTTP"),
        header(0, 0, zero=1),
        header(MAX_BODY_BYTES + 1, 0),
        header(10, 1 << 40),
        b"short",
    ],
)
def test_bad_headers_are_refused(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_header(raw)


def body(message: object, dtype: object = "", shape: object = ()) -> bytes:
    return msgspec.msgpack.encode([message, dtype, shape])


@pytest.mark.parametrize(
    ("payload", "tensor"),
    [
        (b"\xff\xff", 0),
        (body({"type": "Nonsense"}), 0),
        (body({"type": "Cancel"}), 0),
        (body({"type": "Cancel", "job_id": 3}), 0),
        (body({"type": "Cancel", "job_id": "a", "more": 1}), 0),
        (body({"type": "Shutdown"}, "float32", (2,)), 4),
        (body({"type": "Shutdown"}, "float32", (-1, -1)), 4),
        (body({"type": "Shutdown"}, "object", (1,)), 8),
        (body({"type": "Shutdown"}), 4),
    ],
)
def test_bad_payloads_are_refused(payload: bytes, tensor: int) -> None:
    lengths = parse_header(header(len(payload), tensor))
    with pytest.raises(ProtocolError):
        decode_payload(lengths, payload + bytes(tensor))


@given(noise=st.binary(min_size=HEADER_BYTES, max_size=200))
@settings(deadline=None)
def test_noise_never_raises_anything_else(noise: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        decode(noise)


@given(position=st.integers(0, 60), value=st.integers(0, 255))
@settings(deadline=None)
def test_a_flipped_byte_never_raises_anything_else(position: int, value: int) -> None:
    raw = bytearray(encoded(job(), np.ones((2, 3), np.float32)))
    raw[position] = value
    with contextlib.suppress(ProtocolError):
        decode(bytes(raw))


def test_frames_over_a_socket() -> None:
    left, right = socket.socketpair()
    tensor = np.arange(2_000_000, dtype=np.uint8)

    def write() -> None:
        write_frame(left, job("a"), None)
        write_frame(left, ImageReady(job_id="a", index=0, seed=1), tensor)
        left.close()

    writer = threading.Thread(target=write)
    writer.start()
    first, second, third = read_frame(right), read_frame(right), read_frame(right)
    writer.join()
    assert first is not None
    assert isinstance(first.message, Submit)
    assert second is not None
    np.testing.assert_array_equal(second.tensor, tensor)
    assert third is None
    right.close()


def test_a_connection_that_ends_inside_a_frame_is_an_error() -> None:
    left, right = socket.socketpair()
    left.sendall(encoded(Cancel(job_id="a"))[:-1])
    left.close()
    with pytest.raises(ProtocolError, match="before the end"):
        read_frame(right)
    right.close()


def test_step_is_small_on_the_wire() -> None:
    assert len(encoded(Step(job_id="0" * 32, step=1, steps=20))) < 100


def test_the_protocol_loads_neither_torch_nor_asyncio_nor_grpc() -> None:
    code = (
        "import sys, engine.protocol.channel, engine.protocol.messages;"
        "print([name for name in ('torch', 'asyncio', 'grpc', 'transformers') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
