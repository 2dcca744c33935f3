"""The engine as a process of its own: start, work, and every way in which it ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import structlog

from engine.config import EngineConfig
from engine.loop import process
from engine.loop.process import Exit, serve
from engine.protocol.channel import read_frame, write_frame
from engine.protocol.framing import PROTOCOL_VERSION, Frame, Tensor, encode_frame
from engine.protocol.messages import (
    Cancel,
    EncodeReference,
    Failed,
    FailureReason,
    Finished,
    ImageReady,
    Loading,
    Message,
    Ready,
    ReferenceEncoded,
    Shutdown,
    Submit,
    TickReport,
)
from tests.tinymodels import build_tiny_model

M = TypeVar("M", bound=Message)
WAIT = 200.0


class Connection:
    """The server's end of an engine's socket. ``tensor`` came with the message that was waited for last."""

    tensor: Tensor | None = None

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self.socket.settimeout(WAIT)

    def tell(self, message: Message, tensor: Tensor | None = None) -> None:
        write_frame(self.socket, message, tensor)

    def hear(self) -> Frame:
        frame = read_frame(self.socket)
        assert frame is not None, "the engine has ended"
        return frame

    def hear_until(self, kind: type[M]) -> M:
        while True:
            frame = self.hear()
            if isinstance(frame.message, kind):
                self.tensor = frame.tensor
                return frame.message


class EngineProcess(Connection):
    """A spawned engine."""

    def __init__(self, model: Path) -> None:
        ours, theirs = socket.socketpair()
        super().__init__(ours)
        command = [sys.executable, "-m", "engine", "serve", "--socket-fd", str(theirs.fileno())]
        self.process = subprocess.Popen(
            [*command, "--model", str(model), "--threads", "1", "--buckets", "1,2,4"],
            pass_fds=[theirs.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        theirs.close()
        self.errors = b""
        self._drain = threading.Thread(target=self._read_errors, daemon=True)
        self._drain.start()

    def wait(self) -> int:
        status = self.process.wait(WAIT)
        self._drain.join(WAIT)
        return status

    def log(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.errors.splitlines()]

    def end(self) -> None:
        self.socket.close()
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait(WAIT)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            self.errors = stream.read()


Start = Callable[[Path], EngineProcess]


@pytest.fixture
def log() -> Iterator[structlog.testing.CapturingLogger]:
    logger = structlog.testing.CapturingLogger()
    structlog.configure(
        processors=[], wrapper_class=structlog.BoundLogger, logger_factory=lambda *args: logger
    )
    yield logger
    structlog.reset_defaults()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def start() -> Iterator[Start]:
    with contextlib.ExitStack() as stack:

        def started(model: Path) -> EngineProcess:
            engine = EngineProcess(model)
            stack.callback(engine.end)
            return engine

        yield started


def job(job_id: str, **changes: object) -> Submit:
    settings: dict[str, object] = {
        "job_id": job_id,
        "prompt": "a man",
        "negative_prompt": "",
        "sampler": "euler_ancestral",
        "steps": 4,
        "guidance_scale": 3.0,
        "guidance_rescale": 0.0,
        "ip_adapter_scale": 1.0,
        "width": 64,
        "height": 64,
        "seeds": (5,),
    }
    return Submit(**{**settings, **changes})  # type: ignore[arg-type]


def test_a_whole_life(model: Path, start: Start) -> None:
    engine = start(model)
    assert engine.hear().message == Loading(phase="loading")
    assert engine.hear().message == Loading(phase="warming")
    ready = engine.hear_until(Ready)
    assert ready.pid == engine.process.pid
    assert ready.buckets == (1, 2, 4)
    assert set(ready.tick_seconds) == {"1", "2", "4"}
    assert ready.model.preprocessor == {"size": 32, "shortest_edge": 32, "resample": "bicubic"}
    assert {sampler.name: sampler.max_steps for sampler in ready.samplers}["lcm"] == 50

    engine.tell(EncodeReference(request_id="r"), np.full((32, 32, 3), 90, np.uint8))
    assert engine.hear_until(ReferenceEncoded).request_id == "r"
    tokens = engine.tensor
    assert tokens is not None
    assert tokens.shape == (ready.model.adapters[0].tokens, ready.model.token_width)

    # Nobody but the server ends it.
    engine.process.send_signal(signal.SIGINT)
    engine.process.send_signal(signal.SIGTERM)

    pictures = []
    for name in ("first", "again"):
        engine.tell(job(name, deterministic=True), tokens[None])
        assert engine.hear_until(ImageReady).job_id == name
        pictures.append(engine.tensor)
        assert engine.hear_until(Finished).job_id == name
    np.testing.assert_array_equal(*pictures)

    engine.tell(job("long", steps=200))
    engine.tell(Cancel(job_id="long"))
    assert engine.hear_until(Failed).reason is FailureReason.CANCELLED
    assert engine.hear_until(TickReport).running == 0

    engine.tell(Shutdown())
    assert engine.wait() == 0
    assert engine.process.stdout is not None
    assert engine.process.stdout.read() == b""
    assert "ready" in {line["event"] for line in engine.log()}


def test_it_ends_when_the_server_is_gone_even_in_the_middle_of_work(model: Path, start: Start) -> None:
    engine = start(model)
    engine.hear_until(Ready)
    for number in range(20):
        engine.tell(job(str(number), steps=200))
    engine.hear_until(TickReport)
    engine.socket.close()
    assert engine.wait() == 0


def test_it_ends_when_the_server_goes_while_it_loads(model: Path, start: Start) -> None:
    engine = start(model)
    assert engine.hear().message == Loading(phase="loading")
    engine.socket.close()
    assert engine.wait() == 0


def test_after_a_kill_another_process_gives_the_same_picture(model: Path, start: Start) -> None:
    asked = job("replayed", steps=30, deterministic=True)
    first = start(model)
    first.hear_until(Ready)
    first.tell(asked)
    first.hear_until(TickReport)
    os.kill(first.process.pid, signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    with contextlib.suppress(ConnectionResetError):
        while read_frame(first.socket) is not None:
            pass

    second = start(model)
    second.hear_until(Ready)
    second.tell(asked)
    second.hear_until(ImageReady)

    connection, status = serve_in_thread(EngineConfig(model=model, threads=1, buckets=(1, 2, 4)))
    third = Connection(connection)
    third.hear_until(Ready)
    third.tell(asked)
    third.hear_until(ImageReady)
    third.tell(Shutdown())
    assert status() is Exit.DONE
    np.testing.assert_array_equal(second.tensor, third.tensor)


def serve_in_thread(config: EngineConfig) -> tuple[socket.socket, Callable[[], Exit]]:
    """Serve from a thread of this process; return the server's end and what waits for the exit status."""
    ours, theirs = socket.socketpair()
    ours.settimeout(WAIT)
    statuses: list[Exit] = []
    thread = threading.Thread(target=lambda: statuses.append(serve(config, theirs)))
    thread.start()

    def status() -> Exit:
        thread.join(WAIT)
        theirs.close()
        ours.close()
        return statuses[0]

    return ours, status


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"model": Path("/nonexistent")}, "no model_index.json"),
        ({"adapter": "nope"}, "no such adapter"),
        ({"backend": "abacus"}, "no backend 'abacus'"),
        ({"buckets": (5,)}, "buckets"),
        ({"device": "cuda"}, "device"),
        ({"buckets": (3, 6)}, "deterministic images need one power of two"),
        ({"deterministic_bucket": 64}, "deterministic_bucket"),
    ],
)
def test_what_cannot_start_says_why(
    model: Path,
    changes: dict[str, object],
    what: str,
    log: structlog.testing.CapturingLogger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        process, "calibrate_or_recall", None
    )  # nothing waits for warm-up to be told what is wrong
    _, status = serve_in_thread(EngineConfig(**{"model": model, "threads": 1, **changes}))  # type: ignore[arg-type]
    assert status() is Exit.CANNOT_START
    (error,) = [str(call.kwargs["error"]) for call in log.calls if call.method_name == "critical"]
    assert what in error


def test_another_version_ends_the_engine(model: Path, log: structlog.testing.CapturingLogger) -> None:
    connection, status = serve_in_thread(EngineConfig(model=model, threads=1, buckets=(1, 2)))
    frame = bytearray(encode_frame(Shutdown())[0])
    frame[4] = PROTOCOL_VERSION + 1
    connection.sendall(frame)
    assert status() is Exit.BROKEN
    assert any("version" in str(call.kwargs.get("error")) for call in log.calls)


def test_a_bad_model_ends_the_process_with_one_line(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(WAIT)
        process = subprocess.Popen(
            [sys.executable, "-m", "engine", "serve", "--socket", str(path), "--model", "/nonexistent"],
            stderr=subprocess.PIPE,
        )
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(WAIT)
            frame = read_frame(connection)
            assert frame is not None
            assert frame.message == Loading(phase="loading")
            _, errors = process.communicate(timeout=WAIT)
    assert process.returncode == 2
    (line,) = errors.splitlines()
    assert "no model_index.json" in json.loads(line)["error"]
