"""Two servers with fake engines, and the Envoy of deploy/ before them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from tests.needs import needing
from tests.server.processes import Process, process
from tools.deploy.paths import MissingError
from tools.local_envoy import LocalEnvoy, envoy_command, local_envoy


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """Envoy, and the servers behind it."""

    envoy: LocalEnvoy
    servers: tuple[Process, ...]


@contextmanager
def open_gateway(folder: Path) -> Iterator[Gateway]:
    """Start two servers and Envoy, and wait until it finds both ready."""
    with needing(MissingError):
        envoy_command()
    with ExitStack() as stack:
        servers = []
        for name in ("first", "second"):
            (folder / name).mkdir()
            servers.append(stack.enter_context(process(folder / name)))
        for server in servers:
            server.until_ready()
        targets = [server.told()["grpc"][0] for server in servers]
        envoy = stack.enter_context(local_envoy(targets, log=folder / "envoy.log"))
        servers[0].until(lambda: envoy.healthy() == set(targets))
        yield Gateway(envoy=envoy, servers=tuple(servers))


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with open_gateway(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture(scope="session")
def picture() -> bytes:
    """A reference picture, as PNG."""
    file = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("RGB").save(file, "PNG")
    return file.getvalue()
