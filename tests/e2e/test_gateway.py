"""The model in the box behind Envoy: what docs/gateway.md shows, run as it stands there."""

from __future__ import annotations

import io
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from limner.v1.portrait_service_pb2 import GenerateResponse
from PIL import Image

from tests.gateway.web import split_frames
from tests.needs import needing
from tools import npm
from tools.deploy.paths import MissingError
from tools.local_envoy import LocalEnvoy, local_envoy
from tools.local_server import LocalServer

EXAMPLES = re.findall(
    r"^```sh\n(.*?)^```", (npm.ROOT / "docs/gateway.md").read_text(), re.DOTALL | re.MULTILINE
)


@pytest.fixture(scope="module")
def envoy(server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEnvoy]:
    with (
        needing(MissingError),
        local_envoy([server.target], log=tmp_path_factory.mktemp("envoy") / "envoy.log") as running,
    ):
        yield running


def test_the_examples_of_the_page_make_portraits(
    envoy: LocalEnvoy, references: list[Path], tmp_path: Path
) -> None:
    assert len(EXAMPLES) == 3
    script = "set -euo pipefail\n" + "\n".join(EXAMPLES)
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False,
        env={**os.environ, "URL": f"http://{envoy.target}", "PERSON": str(references[0])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in ("portrait.png", "garden.png"):
        assert looks_painted((tmp_path / name).read_bytes())
    messages, trailers = split_frames((tmp_path / "answer.grpc-web").read_bytes())
    assert trailers["grpc-status"] == "0"
    (message,) = messages
    assert looks_painted(GenerateResponse.FromString(message).images[0].data)


def looks_painted(data: bytes) -> bool:
    """Tell a picture of many colours from a plain one."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    assert image.width >= 64
    return len(image.getcolors(image.width * image.height) or ()) > 500
