"""Answers of peers that are no pictures: each is a refusal with a reason."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from loadtests.peers.errors import PeerRefusedError
from loadtests.peers.target import PNG_SIGNATURE, PeerTarget
from tests.loadtests.building import ASK

PNG = PNG_SIGNATURE + b"pixels"
Answering = Callable[[bytes], str]


@pytest.fixture
def answering() -> Iterator[Answering]:
    """Give the URL of a server that answers one request with these bytes and hangs up."""
    threads: list[threading.Thread] = []

    def serve(listener: socket.socket, answer: bytes) -> None:
        with closing(listener), listener.accept()[0] as connection:
            received = b""
            while not received.endswith(b"}"):
                received += connection.recv(65536)
            connection.sendall(answer)

    def start(answer: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        threads.append(threading.Thread(target=serve, args=(listener, answer)))
        threads[-1].start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"

    yield start
    for thread in threads:
        thread.join(timeout=20)


def http(body: bytes, *, status: str = "200 OK", missing: int = 0) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body) + missing}\r\n\r\n".encode() + body


def outputs(*data: object) -> bytes:
    return json.dumps({"outputs": [{"data": list(data)}]}).encode()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (http(PNG, missing=9), "gave no answer: IncompleteRead"),
        (b"no HTTP at all\r\n\r\n", "gave no answer: "),
        (b"", "gave no answer: "),
        (http(b"<html>"), "answered no PNG"),
        (http(b"\xff\xfe", status="500 Oops"), "answered 500"),
        (http(b"out of", status="500 Oops", missing=9), "answered 500"),
    ],
)
def test_an_answer_that_breaks_off_or_is_no_picture_is_a_refusal(
    answering: Answering, answer: bytes, told: str
) -> None:
    with pytest.raises(PeerRefusedError) as raised:
        PeerTarget("ray", answering(answer)).ask(ASK)
    assert raised.value.reason.startswith(told)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff",
        b"[]",
        b"3",
        b'{"outputs": []}',
        b'{"outputs": null}',
        outputs(),
        outputs(None),
        outputs("x"),
        outputs("\u00e9"),
    ],
)
def test_a_malformed_kserve_body_is_a_refusal(answering: Answering, body: bytes) -> None:
    with pytest.raises(PeerRefusedError, match="answered no KServe outputs"):
        PeerTarget("pytriton", answering(http(body)), kserve=True).ask(ASK)


def test_a_kserve_body_has_the_picture(answering: Answering) -> None:
    body = outputs(base64.b64encode(PNG).decode())
    assert PeerTarget("pytriton", answering(http(body)), kserve=True).ask(ASK) == PNG
