"""The sides of the comparison: how each is started, and how it is asked for a portrait."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from limner_client import AsyncClient, LimnerError

from engine.embedded import model_directory, reference_portraits
from loadtests.peers.ask import Ask
from loadtests.peers.environments import environment
from loadtests.peers.errors import PeerNotStartedError, PeerRefusedError, tail
from loadtests.peers.process import free_port, running
from tools.local_server import local_server

START_SECONDS = 240.0
CALL_SECONDS = 600.0
POLL_SECONDS = 0.2
ROOT = Path(__file__).resolve().parents[2]
LIMNER = "limner"


class Target(Protocol):
    """Answers an ask with a PNG. Raises ``PeerRefusedError`` for any other answer."""

    async def __call__(self, ask: Ask) -> bytes:
        """Ask for one portrait."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A peer's module in `loadtests.peers.serving`, the environment that it runs in, and its way of being asked."""

    module: str
    requirements: str
    path: str = "predict"
    kserve: bool = False
    environment: dict[str, str] = field(default_factory=dict)


PEERS = {
    "diffusers": Peer(module="plain", requirements="diffusers"),
    "litserve": Peer(module="litserve_server", requirements="litserve"),
    "ray": Peer(
        module="ray_server",
        requirements="ray",
        path="",
        environment={"RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_LOG_TO_STDERR": "0"},
    ),
    "pytriton": Peer(
        module="pytriton_server",
        requirements="pytriton",
        path="v2/models/portrait/infer",
        kserve=True,
        # Triton's Python stub takes the first libpython of its minor version that the loader finds; it must be ours.
        environment={"LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR"))},
    ),
    "openvino": Peer(module="openvino_server", requirements="openvino"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A server and the type that it computes in; None leaves the type to it."""

    name: str
    dtype: str | None

    def __str__(self) -> str:
        return self.name if self.dtype is None else f"{self.name}:{self.dtype}"


def parse_side(text: str) -> Side:
    """Return the side that ``NAME`` or ``NAME:DTYPE`` stands for. Raises ``ValueError`` for unknown ones."""
    name, _, dtype = text.partition(":")
    if name != LIMNER and name not in PEERS:
        raise ValueError(f"side {name!r} is none of {', '.join([LIMNER, *PEERS])}")
    if dtype not in ("", "float32", "bfloat16"):
        raise ValueError(f"type {dtype!r} is none of float32, bfloat16")
    return Side(name=name, dtype=dtype or None)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartSettings:
    """What is the same for every side."""

    threads: int
    max_batch: int
    batch_seconds: float
    cache: Path
    pip_arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A running side: its process, its log, and how to open a target in an event loop."""

    pid: int
    seconds: float
    open: Callable[[], contextlib.AbstractAsyncContextManager[Target]]


class HttpTarget:
    """Asks a peer over HTTP; one thread a call in flight, so that asyncio is not what is measured."""

    def __init__(self, name: str, port: int, peer: Peer) -> None:
        self._name = name
        self._url = f"http://127.0.0.1:{port}/{peer.path}"
        self._kserve = peer.kserve

    async def __call__(self, ask: Ask) -> bytes:
        return await asyncio.to_thread(self.ask, ask)

    def ask(self, ask: Ask) -> bytes:
        """Post one ask and return the picture."""
        request = urllib.request.Request(
            self._url, self._body(ask).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=CALL_SECONDS) as answer:
                body: bytes = answer.read()
        except urllib.error.HTTPError as error:
            raise PeerRefusedError(self._name, f"answered {error.code}", error.read().decode()) from error
        except OSError as error:
            raise PeerRefusedError(self._name, f"gave no answer: {error}") from error
        return base64.b64decode(json.loads(body)["outputs"][0]["data"][0]) if self._kserve else body

    def _body(self, ask: Ask) -> str:
        if not self._kserve:
            return ask.to_json()
        # The KServe v2 protocol's "bytes" are strings in JSON.
        return json.dumps(
            {"inputs": [{"name": "ask", "datatype": "BYTES", "shape": [1, 1], "data": [ask.to_json()]}]}
        )


@contextlib.contextmanager
def start_peer(side: Side, settings: StartSettings, first: Ask) -> Iterator[Started]:
    """Start a peer in its own environment and wait until it has answered its first ask.

    Raises ``PeerNotInstalledError`` and ``PeerNotStartedError`` with the end of its log.
    """
    peer = PEERS[side.name]
    python = environment(peer.requirements, settings.cache, settings.pip_arguments)
    port = free_port()
    command = [
        str(python), "-m", f"loadtests.peers.serving.{peer.module}",
        "--model", str(model_directory()), "--references", str(next(iter(reference_portraits().values())).parent),
        "--port", str(port), "--threads", str(settings.threads), "--max-batch", str(settings.max_batch),
        "--batch-seconds", str(settings.batch_seconds),
    ]  # fmt: skip
    if side.dtype is not None:
        command += ["--dtype", side.dtype]
    log = settings.cache / f"{str(side).replace(':', '-')}.log"
    variables = {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": str(settings.threads),
        "HF_HUB_OFFLINE": "1",
        **peer.environment,
    }
    target = HttpTarget(str(side), port, peer)
    start = time.perf_counter()
    with running(command, log, variables) as process:
        said = ""
        while True:
            if process.poll() is not None:
                raise PeerNotStartedError(str(side), f"ended with status {process.returncode}", tail(log))
            if time.perf_counter() - start > START_SECONDS:
                raise PeerNotStartedError(
                    str(side), f"gave no picture within {START_SECONDS:.0f} s{said}", tail(log)
                )
            try:
                target.ask(first)
                break
            except PeerRefusedError as error:  # a server that is up before its model
                said = f"; {error.reason}"
            time.sleep(POLL_SECONDS)

        @contextlib.asynccontextmanager
        async def opened() -> AsyncIterator[Target]:
            yield target

        yield Started(pid=process.pid, seconds=time.perf_counter() - start, open=opened)


@contextlib.contextmanager
def start_limner(side: Side, settings: StartSettings) -> Iterator[Started]:
    """Start Limner's server with its engine. Raises ``PeerNotStartedError`` with the end of its log."""
    options = ["--engine-threads", str(settings.threads), "--log-level", "warning"]
    if side.dtype is not None:
        options += ["--engine-dtype", side.dtype]
    log = settings.cache / f"{str(side).replace(':', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(local_server(*options, log=log))
        except RuntimeError as error:
            raise PeerNotStartedError(str(side), "did not start", str(error)) from error

        @contextlib.asynccontextmanager
        async def opened() -> AsyncIterator[Target]:
            async with AsyncClient(server.target, timeout=CALL_SECONDS) as client:
                names = reference_portraits()
                uploaded = {name: await client.upload(path) for name, path in names.items()}

                async def target(ask: Ask) -> bytes:
                    try:
                        portrait = await client.generate(
                            ask.prompt,
                            uploaded[ask.reference],
                            steps=ask.steps,
                            sampler=ask.sampler,
                            guidance_scale=ask.guidance_scale,
                            ip_adapter_scale=ask.ip_adapter_scale,
                            seed=ask.seed,
                            format="png",
                        )
                    except LimnerError as error:
                        raise PeerRefusedError(str(side), f"refused: {error}") from error
                    return portrait.images[0].data

                yield target

        yield Started(pid=server.pid, seconds=server.ready_seconds, open=opened)


def start(side: Side, settings: StartSettings, first: Ask) -> contextlib.AbstractContextManager[Started]:
    """Start any side."""
    return start_limner(side, settings) if side.name == LIMNER else start_peer(side, settings, first)


def references() -> Sequence[str]:
    """Return the people that every side knows."""
    return tuple(reference_portraits())
