"""One real server with the model in the box, and what its metrics page says."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tools.local_server import LocalServer, local_server

Scrape = Callable[[str], dict[tuple[tuple[str, str], ...], float]]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    log = tmp_path_factory.mktemp("server") / "server.log"
    options = ("--log-format", "json", "--drain-notice-seconds", "0", "--kserve-enabled")
    with local_server(*options, log=log) as running:
        yield running


@pytest.fixture(scope="session")
def page(server: LocalServer) -> Callable[[], str]:
    """Read the metrics page."""

    def read() -> str:
        with urllib.request.urlopen(server.metrics_url, timeout=30) as answer:
            return str(answer.read().decode())

    return read


@pytest.fixture(scope="session")
def total(page: Callable[[], str]) -> Callable[..., float]:
    """Sum the samples of one name, of those labels."""

    def read(name: str, **labels: str) -> float:
        samples = [
            sample.value
            for family in text_string_to_metric_families(page())
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        assert samples, f"{name} {labels} is not on the page"
        return sum(samples)

    return read


@pytest.fixture(scope="session")
def references() -> list[Path]:
    from engine.embedded import reference_portraits

    return sorted(reference_portraits().values())
