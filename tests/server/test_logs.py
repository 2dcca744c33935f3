from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from server.config.options import LogOptions
from server.logs import configure_logging
from server.ports import address_of
from server.ready_file import ReadyFile


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    handlers, level = list(logging.root.handlers), logging.root.level
    yield
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_json_where_it_is_no_terminal() -> None:
    stream = io.StringIO()
    log = configure_logging(LogOptions(), stream)
    log.info("call", seconds=0.5, names=("a",), path=Path("/x"))
    log.debug("not told")
    try:
        raise ValueError("why")
    except ValueError as error:
        log.error("failed", exc_info=error)
    logging.getLogger("library").warning("careful %s", "now")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["message"] for line in lines] == ["call", "failed", "careful now"]
    assert lines[0] | {"timestamp": ""} == {
        "message": "call",
        "seconds": 0.5,
        "names": ["a"],
        "path": "PosixPath('/x')",
        "level": "info",
        "process": "server",
        "timestamp": "",
    }
    assert lines[1]["exception"][0]["exc_type"] == "ValueError"
    assert lines[2]["level"] == "warning"


def test_colours_on_a_terminal() -> None:
    stream = Terminal()
    configure_logging(LogOptions(), stream).info("call", seconds=0.5)
    assert "\x1b[" in stream.getvalue()
    assert "seconds" in stream.getvalue()


@pytest.mark.parametrize(("wanted", "stream"), [("json", Terminal()), ("console", io.StringIO())])
def test_the_format_can_be_chosen(wanted: str, stream: io.StringIO) -> None:
    configure_logging(LogOptions(format=wanted), stream).info("call")  # type: ignore[arg-type]
    assert stream.getvalue().startswith("{") == (wanted == "json")
    assert "\x1b[" not in stream.getvalue()


def test_the_ready_file(tmp_path: Path) -> None:
    path = tmp_path / "ready.json"
    file = ReadyFile(str(path))
    file.listening(["127.0.0.1:5"], health="127.0.0.1:7", metrics="http://127.0.0.1:6/metrics")
    file.ready(True)
    assert json.loads(path.read_bytes()) | {"pid": 0} == {
        "pid": 0,
        "grpc": ["127.0.0.1:5"],
        "health": "127.0.0.1:7",
        "metrics": "http://127.0.0.1:6/metrics",
        "ready": True,
    }
    assert [entry.name for entry in tmp_path.iterdir()] == ["ready.json"]
    file.remove()
    assert list(tmp_path.iterdir()) == []
    ReadyFile("").ready(True)


@pytest.mark.parametrize(
    ("host", "address"), [("::1", "[::1]:5"), ("[::]", "[::]:5"), ("0.0.0.0", "0.0.0.0:5"), ("box", "box:5")]
)
def test_addresses(host: str, address: str) -> None:
    assert address_of(host, 5) == address
