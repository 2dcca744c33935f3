"""Two servers with fake engines, and the Envoy of deploy/ before them."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from PIL import Image

from tests.server.processes import Process, process
from tools.local_envoy import LocalEnvoy, MissingEnvoyError, envoy_command, local_envoy


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """Envoy, and the servers behind it."""

    envoy: LocalEnvoy
    servers: tuple[Process, ...]


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    try:
        envoy_command()
    except MissingEnvoyError as missing:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"left out: {missing}")
    with ExitStack() as stack:
        servers = tuple(
            stack.enter_context(process(tmp_path_factory.mktemp("replica"), "--kserve-enabled"))
            for _ in range(2)
        )
        for server in servers:
            server.until_ready()
        targets = [server.told()["grpc"][0] for server in servers]
        log = tmp_path_factory.mktemp("envoy") / "envoy.log"
        yield Gateway(envoy=stack.enter_context(local_envoy(targets, log=log)), servers=servers)


@pytest.fixture(scope="session")
def picture() -> bytes:
    """A reference picture, as PNG."""
    file = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("RGB").save(file, "PNG")
    return file.getvalue()
