"""What kustomize builds fits together, in every overlay and every combination of components."""

from __future__ import annotations

import re

import pytest
import yaml
from redis.asyncio import ConnectionPool

from engine.__main__ import _parser as engine_parser
from server.config import Config
from server.config.table import all_options
from tests.needs import needing
from tests.project.manifests import Build, volume_at
from tools.deploy.dashboard import render
from tools.deploy.kustomize import built
from tools.deploy.paths import KUSTOMIZE, MissingError


@pytest.fixture(scope="module")
def builds() -> dict[str, Build]:
    with needing(MissingError):
        return {name: Build(name=name, resources=tuple(yaml.safe_load_all(text))) for name, text in built()}


def with_job(builds: dict[str, Build]) -> list[Build]:
    found = [build for build in builds.values() if build.all("Job")]
    assert len(found) >= 4
    return found


def test_the_job_builds_the_engine_that_the_replicas_ask_for_where_they_look(
    builds: dict[str, Build],
) -> None:
    for build in with_job(builds):
        (job,) = build.all("Job")
        pod = job["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        program, *arguments = container["command"] + container["args"]
        assert program == "limner-engine"
        # The parser ends the test for an option that is none.
        made, asked = engine_parser().parse_args(arguments), build.config().engine
        assert made.run.__name__ == "run_build"
        assert (made.backend, made.buckets, made.dtype) == (asked.backend, asked.buckets, asked.dtype)
        assert (str(made.model), str(made.output)) == (asked.model, asked.cache_dir)
        # A replica builds for the model's own size, and has no other way.
        assert made.size is None
        assert (made.adapter, made.loras) == (asked.adapter or None, list(asked.loras))
        for path in (asked.model, asked.cache_dir):
            assert volume_at(path, pod) == volume_at(path, build.pod), build.name
        gpus = [
            {key: value for key, value in limits.items() if key.startswith("nvidia.com/")}
            for limits in (container["resources"]["limits"], build.server["resources"]["limits"])
        ]
        assert gpus[0] == gpus[1] != {}, build.name
        assert container["image"] == build.server["image"]


def test_what_is_applied_first_is_what_the_job_needs(builds: dict[str, Build]) -> None:
    for build in with_job(builds):
        first = {
            (one["kind"], one["metadata"]["name"])
            for one in build.resources
            if one["metadata"].get("labels", {}).get("limner/apply") == "first"
        }
        (job,) = build.all("Job")
        pod = job["spec"]["template"]["spec"]
        assert first == {
            ("Namespace", job["metadata"]["namespace"]),
            ("ServiceAccount", pod["serviceAccountName"]),
            ("PersistentVolumeClaim", volume_at("/cache", pod)["persistentVolumeClaim"]["claimName"]),
            ("Job", job["metadata"]["name"]),
        }


def test_an_upgrade_does_not_wait_for_a_gpu_that_the_old_replica_has(builds: dict[str, Build]) -> None:
    single = builds["gpu-single"]
    assert single.deployment["spec"]["replicas"] == 1
    assert single.deployment["spec"]["strategy"] == {"type": "Recreate"}
    # Elsewhere a new replica takes calls before an old one leaves.
    for build in builds.values():
        if build is not single:
            assert build.deployment["spec"]["strategy"] == {
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}
            }, build.name


def test_the_network_policy_opens_the_ports_that_are_used() -> None:
    file = KUSTOMIZE / "components/network-policy/networkpolicy.yaml"
    commented = re.sub(r"^( *)# (- to:|  )", r"\1\2", file.read_text(), flags=re.MULTILINE)
    shipped, opened = (yaml.safe_load(text)["spec"] for text in (file.read_text(), commented))
    listen = Config().listen
    assert [rule["ports"][0]["port"] for rule in shipped["ingress"]] == [listen.port, listen.metrics_port]
    dns, redis, traces = shipped["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    (tracing,) = (one for one in all_options() if one.key == "tracing.endpoint")
    (port,) = re.findall(r"http://localhost:(\d+)", tracing.description)
    assert [one["port"] for one in traces["ports"]] == [int(port)]
    # The port of a URL that names none.
    assert [one["port"] for one in redis["ports"]] == [
        ConnectionPool.from_url("redis://somewhere").make_connection().port
    ]
    assert opened["egress"] == [dns, redis, opened["egress"][2], traces]
    assert "ipBlock" in opened["egress"][2]["to"][0]


def test_every_variable_of_ours_is_an_option_and_their_values_are_sound(builds: dict[str, Build]) -> None:
    options = {option.variable for option in all_options()}
    for build in builds.values():
        named = {one["name"] for one in build.server.get("env", [])}
        assert {name for name in named if name.startswith("LIMNER_")} <= options, build.name
        build.config()


def test_the_ports_are_those_that_the_server_opens(builds: dict[str, Build]) -> None:
    for build in builds.values():
        listen = build.config().listen
        opened = {"grpc": listen.port, "metrics": listen.metrics_port, "health": listen.health_port}
        ports = {one["name"]: one["containerPort"] for one in build.server["ports"]}
        assert ports == {name: port for name, port in opened.items() if port > 0}, build.name
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert build.server[probe]["grpc"]["port"] == ports.get("health", ports["grpc"]), build.name
        for service in build.all("Service"):
            for port in service["spec"]["ports"]:
                assert port["port"] == ports[port["targetPort"]], build.name
        for monitor in build.all("PodMonitor"):
            assert {one["port"] for one in monitor["spec"]["podMetricsEndpoints"]} <= ports.keys()
        for route in build.all("GRPCRoute"):
            for rule in route["spec"]["rules"]:
                for backend in rule["backendRefs"]:
                    (service,) = build.all("Service")
                    assert backend["name"] == service["metadata"]["name"]
                    assert backend["port"] in {port["port"] for port in service["spec"]["ports"]}


def test_selectors_find_the_replicas_and_not_the_job(builds: dict[str, Build]) -> None:
    for build in builds.values():
        replicas = build.deployment["spec"]["template"]["metadata"]["labels"]
        selectors = [build.deployment["spec"]["selector"]["matchLabels"]]
        selectors += [one["spec"]["selector"] for one in build.all("Service")]
        selectors += [
            one["spec"]["selector"]["matchLabels"]
            for kind in ("PodDisruptionBudget", "PodMonitor")
            for one in build.all(kind)
        ]
        selectors += [one["spec"]["podSelector"]["matchLabels"] for one in build.all("NetworkPolicy")]
        selectors += [one["labelSelector"]["matchLabels"] for one in build.pod["topologySpreadConstraints"]]
        assert len(build.all("Service")) == len(build.all("PodDisruptionBudget")) == 1
        for selector in selectors:
            assert selector
            assert selector.items() <= replicas.items(), build.name
            for job in build.all("Job"):
                labels = job["spec"]["template"]["metadata"]["labels"]
                assert not selector.items() <= labels.items(), build.name
        for scaled in build.all("ScaledObject"):
            assert scaled["spec"]["scaleTargetRef"]["name"] == build.deployment["metadata"]["name"]
        namespaces = {one["metadata"].get("namespace", "limner") for one in build.resources}
        assert namespaces == {"limner"}


def test_the_dashboard_goes_where_grafana_looks_for_it(builds: dict[str, Build]) -> None:
    found = [build for build in builds.values() if build.all("PodMonitor")]
    assert found
    for build in found:
        (board,) = (one for one in build.all("ConfigMap") if one["metadata"]["name"] == "limner-dashboard")
        assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert board["data"] == {"limner.json": render()}


def test_the_gateway_expects_the_certificate_that_the_replicas_show(builds: dict[str, Build]) -> None:
    build = builds["tls+gateway+gateway-tls"]
    (policy,) = build.all("BackendTLSPolicy")
    (certificate,) = (one for one in build.all("Certificate") if one["metadata"]["name"] == "limner")
    (service,) = build.all("Service")
    (target,) = policy["spec"]["targetRefs"]
    (port,) = (one for one in service["spec"]["ports"] if one["name"] == target["sectionName"])
    assert target["name"] == service["metadata"]["name"]
    assert (port["targetPort"], port["appProtocol"]) == ("grpc", "https")
    validation = policy["spec"]["validation"]
    assert validation["hostname"] in certificate["spec"]["dnsNames"]
    assert validation["caCertificateRefs"] == [
        {"group": "", "kind": "Secret", "name": certificate["spec"]["secretName"]}
    ]
    # Where the gateway speaks plain to replicas that speak TLS alone, no call arrives.
    for other in builds.values():
        kinds = {one["kind"] for one in other.resources}
        if {"Certificate", "Gateway"} <= kinds:
            assert "BackendTLSPolicy" in kinds, other.name
