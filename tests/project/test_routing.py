"""Envoy's configuration and the Gateway's policies say the same, and fit the server's limits and the client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from limner_client.exchange import Exchange, Session

from server.api.health import READINESS
from server.config import Config
from server.config.options import DrainOptions
from tests.needs import needing
from tools.deploy.__main__ import validate
from tools.deploy.envoy import SHIPPED, configuration, main
from tools.deploy.paths import KUSTOMIZE, CheckError, MissingError
from tools.stubs import DESCRIPTORS

GATEWAY = KUSTOMIZE / "components" / "gateway"
SENT = Exchange(Session(), timeout=1, digest="a digest").call("", b"").metadata
(REFERENCE_KEY,) = (key for key, value in SENT if value == "a digest")


@pytest.fixture
def shipped() -> Any:
    return yaml.safe_load(SHIPPED.read_text())


@pytest.fixture
def cluster(shipped: Any) -> Any:
    (only,) = shipped["static_resources"]["clusters"]
    return only


@pytest.fixture
def manager(shipped: Any) -> Any:
    (listener,) = shipped["static_resources"]["listeners"]
    return listener["filter_chains"][0]["filters"][0]["typed_config"]


@pytest.fixture
def host(manager: Any) -> Any:
    (only,) = manager["route_config"]["virtual_hosts"]
    return only


def backend_policies() -> dict[str, Any]:
    documents = yaml.safe_load_all((GATEWAY / "backendtrafficpolicies.yaml").read_text())
    return {one["metadata"]["name"]: one["spec"] for one in documents}


def differences(one: Any, other: Any, path: str = "") -> set[str]:
    """Name the places where two documents differ."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return set().union(*(differences(one[key], other[key], f"{path}.{key}") for key in one))
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return set().union(
            *(differences(*pair, f"{path}[{n}]") for n, pair in enumerate(zip(one, other, strict=True)))
        )
    return set() if one == other else {path.removeprefix(".")}


def test_only_addresses_are_written_anew(shipped: Any) -> None:
    assert configuration() == shipped
    made = configuration(
        replicas=["127.0.0.1:1", "[::1]:2"],
        listen="127.0.0.1:3",
        admin="127.0.0.1:4",
        descriptors="limner.binpb",
    )
    manager = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config"
    assert differences(shipped, made) == {
        "admin.address.socket_address.port_value",
        "static_resources.listeners[0].address.socket_address.address",
        "static_resources.listeners[0].address.socket_address.port_value",
        "static_resources.clusters[0].load_assignment.endpoints[0].lb_endpoints",
        f"{manager}.http_filters[4].typed_config.proto_descriptor",
    }


def test_a_configuration_that_envoy_cannot_load_is_refused(tmp_path: Path) -> None:
    made = configuration(descriptors=DESCRIPTORS)
    made["static_resources"]["clusters"][0]["lb_policy"] = "RING_HASHED"
    with needing(MissingError):
        with pytest.raises(CheckError, match="RING_HASHED"):
            validate(made)
        with pytest.raises(CheckError, match=r"nowhere\.binpb"):
            validate(configuration(descriptors=tmp_path / "nowhere.binpb"))


@pytest.mark.parametrize("address", ["10.0.0.5", "10.0.0.5:grpc", ":50051", "10.0.0.5:65536"])
def test_an_address_that_is_none_is_named(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--replica", address])
    assert f"{address!r} is not host:port" in capsys.readouterr().err


def test_the_command_prints_what_the_function_makes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--replica", "10.0.0.5:50051"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == configuration(replicas=["10.0.0.5:50051"])


def test_administration_is_on_loopback(shipped: Any) -> None:
    assert shipped["admin"]["address"]["socket_address"]["address"] == "127.0.0.1"


def test_both_hash_what_the_client_sends(host: Any) -> None:
    hashed = [one["route"]["hash_policy"] for one in host["routes"] if "hash_policy" in one.get("route", {})]
    assert {one[0]["header"]["header_name"] for one in hashed} == {REFERENCE_KEY}
    for policy in backend_policies().values():
        assert policy["loadBalancer"]["consistentHash"]["headers"] == [{"name": REFERENCE_KEY}]


def test_a_draining_replica_is_left_before_it_refuses(cluster: Any) -> None:
    (check,) = cluster["health_checks"]
    assert check["grpc_health_check"]["service_name"] == READINESS
    # Asked at no_traffic_interval too, since a replica may have no connection of this proxy yet.
    slowest = max(float(check[key].removesuffix("s")) for key in ("interval", "no_traffic_interval"))
    assert slowest * check["unhealthy_threshold"] < DrainOptions().notice_seconds
    for policy in backend_policies().values():
        active = policy["healthCheck"]["active"]
        assert active["grpc"]["service"] == READINESS
        assert (active["interval"], active["unhealthyThreshold"]) == (
            check["interval"],
            check["unhealthy_threshold"],
        )


def test_both_retry_the_same_and_only_a_deletion_not_after_a_reset(host: Any) -> None:
    (delete,) = (one for one in host["routes"] if "path" in one["match"])
    assert delete["match"]["path"].endswith("/DeleteReference")
    policies = backend_policies()
    for envoy, gateway in (
        (host["retry_policy"], policies["limner"]["retry"]),
        (delete["route"]["retry_policy"], policies["limner-delete"]["retry"]),
    ):
        assert envoy["retry_on"].split(",") == gateway["retryOn"]["triggers"]
        assert envoy["num_retries"] == gateway["numRetries"]
    assert "reset" in host["retry_policy"]["retry_on"].split(",")
    assert "reset" not in delete["route"]["retry_policy"]["retry_on"].split(",")
    without = [
        {key: value for key, value in policies[name].items() if key not in ("targetRefs", "retry")}
        for name in ("limner", "limner-delete")
    ]
    assert without[0] == without[1]


def test_no_route_has_a_time_limit_that_would_be_written_over_the_callers(host: Any) -> None:
    for route in (one for one in host["routes"] if "route" in one):
        assert route["route"]["timeout"] == "0s"
        assert "max_stream_duration" not in route["route"]
    for policy in backend_policies().values():
        assert policy["timeout"] == {"http": {"requestTimeout": "0s"}}


def test_buffers_hold_what_the_server_takes(manager: Any, host: Any) -> None:
    limits = Config().limits
    assert host["request_body_buffer_limit"] > limits.max_image_bytes
    filters = {one["name"].rpartition(".")[2]: one for one in manager["http_filters"]}
    transcoder, buffer = filters["grpc_json_transcoder"]["typed_config"], filters["buffer"]
    assert transcoder["max_request_body_size"] == buffer["typed_config"]["max_request_bytes"]
    assert transcoder["max_request_body_size"] > limits.max_image_bytes * 4 / 3
    assert transcoder["max_response_body_size"] > limits.max_message_bytes * 4 / 3
    assert list(filters).index("buffer") < list(filters).index("grpc_json_transcoder")
    # In force for JSON alone: gRPC streams through.
    assert buffer["disabled"] is True
    (json,) = (
        one for one in host["routes"] if "envoy.filters.http.buffer" in one.get("typed_per_filter_config", {})
    )
    assert json["match"]["prefix"] == "/v1/"
    assert (
        manager["http2_protocol_options"]["max_concurrent_streams"] >= Config().admission.max_concurrent_rpcs
    )


def test_pages_may_send_and_read_the_same_through_both(host: Any) -> None:
    envoy = host["typed_per_filter_config"]["envoy.filters.http.cors"]
    gateway = yaml.safe_load((GATEWAY / "securitypolicy.yaml").read_text())["spec"]["cors"]
    assert envoy["allow_headers"].split(", ") == gateway["allowHeaders"]
    assert envoy["expose_headers"].split(", ") == gateway["exposeHeaders"]
    assert REFERENCE_KEY in gateway["allowHeaders"]


def test_every_method_of_the_services_has_a_route(host: Any) -> None:
    services = {
        f"{file.package}.{service.name}"
        for file in FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file
        for service in file.service
    }
    matches = [
        match["method"]
        for route in yaml.safe_load_all((GATEWAY / "routes.yaml").read_text())
        for rule in route["spec"]["rules"]
        for match in rule["matches"]
    ]
    assert services
    assert services <= {match["service"] for match in matches if "method" not in match}
    prefixes = tuple(one["match"]["prefix"] for one in host["routes"] if "prefix" in one["match"])
    assert all(f"/{match['service']}/".startswith(prefixes) for match in matches)


def test_the_component_names_files_that_exist() -> None:
    component = yaml.safe_load((GATEWAY / "kustomization.yaml").read_text())
    assert {Path(name).name for name in component["resources"]} | {"kustomization.yaml"} == {
        path.name for path in GATEWAY.iterdir()
    }
