"""The page: what is documented is what is there, tools accept it, and the endpoint starts and stops."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from server.metrics.gpu import register_gpus
from server.metrics.http import MetricsEndpoint
from server.metrics.labels import RpcType
from server.metrics.observer import ServerMetrics
from server.references.record import CacheOutcome
from tests.server.metrics.fake_nvml import FakeGpu, FakeNvml
from tests.server.metrics.messages import finished, ready, tick

DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"
ROW = re.compile(
    r"^\| `(?P<name>[a-z_]+)` \| (?P<type>\w+) \|(?P<labels>[^|]*)\| (?P<meaning>[^|]+) \|$", re.MULTILINE
)

Documented = dict[str, tuple[str, tuple[str, ...]]]


def documented() -> Documented:
    """Type and labels by name, from the table."""
    return {
        row["name"]: (row["type"], tuple(re.findall(r"`(\w+)`", row["labels"])))
        for row in ROW.finditer(DOCUMENT.read_text())
    }


def declared(registry: CollectorRegistry) -> Documented:
    """Type and labels by name, from the collectors themselves."""
    found: Documented = {}
    for collector in registry._collector_to_names:
        if isinstance(collector, MetricWrapperBase):
            families = [(family, collector._labelnames) for family in collector.describe()]
        elif hasattr(collector, "describe"):
            families = [(family, family._labelnames) for family in collector.describe()]
        else:
            families = [(family, ()) for family in collector.collect()]
        for family, labels in families:
            suffix = "_total" if family.type == "counter" else ""
            found[family.name + suffix] = (family.type, tuple(labels))
    return found


def lively() -> ServerMetrics:
    """Metrics of a server that did a little of everything, with a GPU."""
    metrics = ServerMetrics(version="0.1.0")
    register_gpus(metrics.registry, FakeNvml(FakeGpu()))
    metrics.declare_rpcs({"/limner.v1.PortraitService/Generate": RpcType.UNARY})
    metrics.rpc_started("/limner.v1.PortraitService/Generate")
    metrics.rpc_handled("/limner.v1.PortraitService/Generate", "OK", 1.0)
    with metrics.request():
        metrics.engine_ready(ready())
        metrics.tick(tick())
        metrics.job_started(0.2)
        metrics.job_finished(finished())
        metrics.cache(CacheOutcome.MISS)
        metrics.imaging_wait(0.001)
    return metrics


def test_the_table_is_the_registry_both_ways() -> None:
    assert documented() == declared(lively().registry)


def test_each_name_is_documented_once() -> None:
    names = [row["name"] for row in ROW.finditer(DOCUMENT.read_text())]
    assert len(names) == len(set(names)) > 40


def test_names_keep_to_the_rules() -> None:
    for name, (kind, labels) in documented().items():
        assert name.startswith(("limner_", "grpc_server_"))
        assert (kind == "counter") == name.endswith("_total")
        assert not re.search(r"_(ms|millis|percent|mb|mhz|milliwatts)(_|$)", name)
        assert not {"digest", "prompt", "user", "tenant", "task_id", "seed", "le"} & set(labels)


def test_the_page_has_no_created_series() -> None:
    assert "_created" not in generate_latest(lively().registry).decode()


def test_promtool_accepts_the_page() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        assert os.environ.get("CI") != "true", "CI installs promtool (Debian package prometheus)"
        pytest.skip("promtool is not installed")
    page = generate_latest(lively().registry)
    done = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout.decode(), done.stderr.decode()) == (0, "", "")


def fetch(url: str, accept: str = "text/plain") -> tuple[str, str]:
    request = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as response:
        return response.headers["Content-Type"], response.read().decode()


def test_the_endpoint_serves_both_formats_and_nothing_else() -> None:
    with MetricsEndpoint(lively().registry, port=0, address="127.0.0.1") as endpoint:
        url = f"http://127.0.0.1:{endpoint.port}"
        kind, page = fetch(f"{url}/metrics")
        assert kind.startswith("text/plain; version=0.0.4")
        names = {family.name for family in text_string_to_metric_families(page)}
        assert {"limner_request_seconds", "limner_gpu_power_watts", "limner_server_process_open_fds"} <= names
        kind, page = fetch(f"{url}/metrics", "application/openmetrics-text; version=1.0.0")
        assert kind.startswith("application/openmetrics-text")
        assert page.endswith("# EOF\n")
        with pytest.raises(urllib.error.HTTPError) as caught:
            fetch(f"{url}/")
        assert caught.value.code == 404
        caught.value.close()


def test_the_endpoint_stops_and_frees_its_port() -> None:
    registry = CollectorRegistry()
    first = MetricsEndpoint(registry, port=0, address="127.0.0.1")
    port = first.port
    with pytest.raises(OSError, match="in use"):
        MetricsEndpoint(registry, port=port, address="127.0.0.1")
    first.close()
    first.close()
    with pytest.raises(urllib.error.URLError):
        fetch(f"http://127.0.0.1:{port}/metrics")
    with MetricsEndpoint(registry, port=port, address="127.0.0.1") as second:
        assert fetch(f"http://127.0.0.1:{second.port}/metrics")[1] == ""


def test_registries_are_apart() -> None:
    one, two = ServerMetrics(version="1"), ServerMetrics(version="2")
    one.job_poisoned()
    assert two.registry.get_sample_value("limner_jobs_poisoned_total") == 0
