"""The reader thread: however it ends, the loop learns of it and the process ends too."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from engine.loop import process
from engine.loop.mailbox import Mailbox
from engine.loop.process import Exit
from engine.protocol.channel import read_frame
from engine.protocol.framing import ProtocolError, encode_frame
from engine.protocol.messages import Shutdown


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[socket.socket, socket.socket]]:
    monkeypatch.setattr(process, "ORPHAN_SECONDS", 0.01)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def read(connection: socket.socket, *, ended: bool = False) -> tuple[Mailbox, list[int]]:
    mailbox, calls = Mailbox(), []
    event = threading.Event()
    if ended:
        event.set()
    process._read(connection, mailbox, event, calls.append)
    return mailbox, calls


def test_a_server_that_is_gone_ends_a_busy_process(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    ours.close()
    mailbox, calls = read(theirs)
    assert calls == [Exit.DONE]
    assert mailbox.drain(0) == []
    assert mailbox.closed


def test_a_process_that_ends_by_itself_is_left_to_it(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    ours.close()
    _, calls = read(theirs, ended=True)
    assert calls == []


def test_what_is_no_message_ends_the_process_as_broken(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    ours.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(20))
    mailbox, calls = read(theirs)
    assert calls == [Exit.BROKEN]
    with pytest.raises(ProtocolError):
        mailbox.drain(0)


def test_a_reader_that_fails_ends_the_process_as_broken(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(connection: socket.socket) -> object:
        frame = read_frame(connection)
        if frame is not None:
            return frame
        raise MemoryError("a tensor is too large")

    ours, theirs = ends
    ours.sendall(b"".join(encode_frame(Shutdown())))
    ours.close()
    monkeypatch.setattr(process, "read_frame", failing)
    mailbox, calls = read(theirs)
    assert calls == [Exit.BROKEN]
    with pytest.raises(MemoryError, match="too large"):
        mailbox.drain(0)
