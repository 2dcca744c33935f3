"""A real server, and the clients of another toolchain: buf, and JavaScript that protoc-gen-es generated."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.needs import need
from tools import npm
from tools.local_server import local_server

ROOT = npm.ROOT
WEIGHTS = ROOT / "engine" / "embedded" / "weights"
REFERENCE = ROOT / "engine" / "embedded" / "references" / "ada.png"


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the model in the box."""
    assert (WEIGHTS / "model_index.json").exists(), "the checkout lacks the model in the box"
    log = tmp_path_factory.mktemp("server") / "server.log"
    with local_server("--log-format", "json", "--drain-notice-seconds", "0", log=log) as server:
        yield server.target


@pytest.fixture(scope="session")
def reference_base64() -> str:
    """Give a shipped reference picture as proto3 JSON writes bytes."""
    import base64

    return base64.b64encode(REFERENCE.read_bytes()).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What `buf curl` printed: the messages of the response, or the error as JSON."""

    code: int
    messages: list[dict[str, Any]]
    error: str


@pytest.fixture(scope="session")
def buf_curl(target: str) -> Callable[..., Answer]:
    """Call a method with `buf curl`, which learns the API from the server's reflection."""
    buf = need(npm.binary(npm.TOOLS, "buf"), "buf")

    def call(method: str, request: dict[str, Any], *options: str) -> Answer:
        done = subprocess.run(
            [buf, "curl", "--protocol", "grpc", "--http2-prior-knowledge", *options,
             "--data", "@-", f"http://{target}/limner.v1.{method}"],
            input=json.dumps(request), capture_output=True, text=True, timeout=120, check=False, cwd="/",
        )  # fmt: skip
        return Answer(code=done.returncode, messages=list(_objects(done.stdout)), error=done.stderr)

    return call


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Split JSON objects that follow one another."""
    decoder = json.JSONDecoder()
    while text := text.strip():
        value, end = decoder.raw_decode(text)
        yield value
        text = text[end:]


@pytest.fixture(scope="session")
def javascript(target: str) -> Callable[..., dict[str, Any]]:
    """Generate the JavaScript stubs afresh and give a function that runs the client in `client.mjs`."""
    node = need(shutil.which("node"), "node", npm.node_fault())
    buf = need(npm.binary(npm.TOOLS, "buf"), "buf")
    need(npm.binary(npm.INTEROP, "protoc-gen-es"), "protoc-gen-es")
    shutil.rmtree(npm.INTEROP / "build", ignore_errors=True)
    # The whole workspace: ours, and Google's files that ours import and our errors carry.
    subprocess.run([buf, "generate", ROOT], cwd=npm.INTEROP, check=True, timeout=120)

    def run(command: str, *arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            [node, npm.INTEROP / "client.mjs", f"http://{target}", command, *arguments],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    return run
