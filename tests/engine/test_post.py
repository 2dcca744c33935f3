"""Mailbox and outbox: how messages reach and leave the loop's thread."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from engine.loop.errors import ServerStalledError
from engine.loop.mailbox import Mailbox
from engine.loop.outbox import Outbox
from engine.protocol.framing import Buffer, Frame
from engine.protocol.messages import Cancel, ImageReady, Shutdown, Step, Submit

STEP = Step(job_id="a", step=1, steps=2)
IMAGE = ImageReady(job_id="a", index=0, seed=1)
PIXELS = np.zeros((10, 10, 3), np.uint8)


def test_an_empty_mailbox_does_not_wait_unless_asked() -> None:
    mailbox = Mailbox()
    began = time.monotonic()
    assert mailbox.drain(0) == []
    assert time.monotonic() - began < 0.5
    assert mailbox.drain(0.01) == []


def test_a_mailbox_gives_everything_in_order_and_then_its_end() -> None:
    mailbox = Mailbox()
    frames = [Frame(message=Cancel(job_id=str(number))) for number in range(5)]
    for frame in frames:
        mailbox.put(frame, 1.0)
    mailbox.close()
    assert not mailbox.closed
    assert mailbox.drain(0) == [(frame, 1.0) for frame in frames]
    assert mailbox.closed


def test_a_message_wakes_a_waiting_mailbox() -> None:
    mailbox = Mailbox()
    threading.Timer(0.02, mailbox.put, [Frame(message=Shutdown()), 0.0]).start()
    began = time.monotonic()
    assert len(mailbox.drain(30)) == 1
    assert time.monotonic() - began < 10


class SlowServer:
    """Reads nothing until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.read: list[bytes] = []

    def write(self, buffer: Buffer) -> None:
        assert self.go.wait(30)
        self.read.append(bytes(buffer))


def test_a_slow_server_costs_progress_and_never_waiting() -> None:
    server = SlowServer()
    outbox = Outbox(server.write, soft_bytes=500, hard_bytes=10_000)
    outbox.start()
    outbox.send(IMAGE, PIXELS)
    outbox.send(IMAGE, PIXELS)
    for _ in range(10):
        outbox.send(STEP)
    outbox.send(IMAGE, PIXELS)
    assert outbox.dropped == 10
    server.go.set()
    outbox.close(30)
    assert len(server.read) == 6
    assert b"Step" not in b"".join(server.read)


def test_progress_flows_while_the_server_reads() -> None:
    server = SlowServer()
    server.go.set()
    outbox = Outbox(server.write)
    outbox.start()
    for _ in range(10):
        outbox.send(STEP)
    outbox.close(30)
    assert len(server.read) == 10


def test_a_server_that_has_stopped_reading_ends_the_engine() -> None:
    server = SlowServer()
    outbox = Outbox(server.write, soft_bytes=100, hard_bytes=1000)
    outbox.start()
    for _ in range(2):
        outbox.send(IMAGE, PIXELS)
    with pytest.raises(ServerStalledError):
        outbox.send(IMAGE, PIXELS)
    server.go.set()
    outbox.close(30)


def test_a_server_that_is_gone_is_not_written_to() -> None:
    def gone(buffer: Buffer) -> None:
        raise BrokenPipeError

    outbox = Outbox(gone, hard_bytes=1000)
    outbox.start()
    outbox.send(STEP)
    outbox._thread.join(30)
    for _ in range(100):
        outbox.send(IMAGE, PIXELS)
    outbox.close(1)


def test_submit_defaults_ask_for_nothing_extra() -> None:
    plain = Submit(
        job_id="a",
        prompt="",
        negative_prompt="",
        sampler="ddim",
        steps=1,
        guidance_scale=1.0,
        guidance_rescale=0.0,
        ip_adapter_scale=1.0,
        width=64,
        height=64,
        seeds=(1,),
    )
    assert not (plain.progress or plain.preview_interval or plain.deterministic or plain.priority)
