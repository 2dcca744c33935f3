"""gRPC-Web spoken by hand: frames of a flag byte, four bytes of length, and the message.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md
"""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from urllib.parse import unquote

from google.protobuf.message import Message

from tests.gateway.rest import call

TRAILERS = 0x80


@dataclass(frozen=True, slots=True, kw_only=True)
class WebAnswer:
    """The messages of a call, and the trailers, wherever they were."""

    http_status: int
    headers: dict[str, str]
    messages: list[bytes]
    trailers: dict[str, str]

    @property
    def status(self) -> int:
        return int(self.trailers["grpc-status"])

    @property
    def details(self) -> bytes:
        """The serialized google.rpc.Status, which is sent without padding."""
        text = self.trailers["grpc-status-details-bin"]
        return base64.b64decode(text + "=" * (-len(text) % 4))


def web_call(target: str, path: str, request: Message, *, text: bool = False, **headers: str) -> WebAnswer:
    """Make a call; as `text`, which browsers that cannot read a binary stream use, all is base64."""
    kind = "application/grpc-web-text+proto" if text else "application/grpc-web+proto"
    message = request.SerializeToString()
    body = struct.pack(">BI", 0, len(message)) + message
    answer = call(
        target, "POST", path, base64.b64encode(body) if text else body,
        content_type=kind, accept=kind, x_grpc_web="1", **headers,
    )  # fmt: skip
    if "grpc-status" in answer.headers:  # an error before any message: no frames at all
        trailers = answer.headers
        return WebAnswer(http_status=answer.status, headers=answer.headers, messages=[], trailers=trailers)
    assert answer.headers["content-type"] == kind
    messages, trailers = split_frames(_decoded(answer.body) if text else answer.body)
    return WebAnswer(http_status=answer.status, headers=answer.headers, messages=messages, trailers=trailers)


def _decoded(body: bytes) -> bytes:
    """Decode base64 whose pieces may each be padded."""
    return b"".join(base64.b64decode(body[start : start + 4]) for start in range(0, len(body), 4))


def split_frames(data: bytes) -> tuple[list[bytes], dict[str, str]]:
    """Split a body into messages and trailers."""
    messages: list[bytes] = []
    while data:
        flag, length = struct.unpack_from(">BI", data)
        frame, data = data[5 : 5 + length], data[5 + length :]
        assert len(frame) == length, "a frame was cut short"
        if flag & TRAILERS:
            assert not data, "something follows the trailers"
            pairs = (line.split(":", 1) for line in frame.decode().splitlines())
            return messages, {name.strip().lower(): unquote(value.strip()) for name, value in pairs}
        messages.append(frame)
    raise AssertionError("no trailers came")
