"""The example InferenceService asks for what the server has."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.api.health import LIVENESS, READINESS
from server.config import Config, load
from tests.project.stopping import longest_stop
from tools.deploy.__main__ import hold
from tools.deploy.paths import CheckError

MANIFEST = Path(__file__).parents[2] / "deploy" / "kserve" / "inferenceservice.yaml"
KSERVES_OWN = {"STORAGE_URI"}


@pytest.fixture(scope="module")
def service() -> dict[str, Any]:
    (document,) = yaml.safe_load_all(MANIFEST.read_text())
    return document


@pytest.fixture(scope="module")
def container(service) -> dict[str, Any]:
    (container,) = service["spec"]["predictor"]["containers"]
    return container


@pytest.fixture(scope="module")
def config(container) -> Config:
    """What the server makes of the environment; an unknown or bad option raises."""
    return load([], {each["name"]: each["value"] for each in container["env"]})


def test_it_is_an_inference_service(service, container):
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    # The name by which KServe's controller finds the container that serves.
    assert container["name"] == "kserve-container"


def test_its_pod_is_held_against_kubernetes_schema_and_the_policy(service):
    hold([service])
    misspelt = copy.deepcopy(service)
    misspelt["spec"]["predictor"]["terminationGraceSeconds"] = 90
    with pytest.raises(CheckError, match="terminationGraceSeconds"):
        hold([misspelt])
    rooted = copy.deepcopy(service)
    rooted["spec"]["predictor"]["containers"][0]["securityContext"]["runAsUser"] = 0
    with pytest.raises(CheckError, match="InferenceService limner: kserve-container: may run as root"):
        hold([rooted])


def test_the_server_serves_the_protocol_where_the_probes_and_kserve_look(container, config):
    assert config.kserve.enabled
    (port,) = container["ports"]
    assert (port["containerPort"], config.listen.host) == (config.listen.port, "0.0.0.0")
    probes = {name: container[f"{name}Probe"]["grpc"] for name in ("startup", "readiness", "liveness")}
    assert {probe["port"] for probe in probes.values()} == {config.listen.port}
    services = {name: probe["service"] for name, probe in probes.items()}
    assert services == {"startup": READINESS, "readiness": READINESS, "liveness": LIVENESS}


def test_the_first_start_has_time_to_compile_and_the_last_calls_time_to_end(service, container, config):
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] > config.engine.start_timeout_seconds
    stop = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert service["spec"]["predictor"]["terminationGracePeriodSeconds"] > stop + longest_stop(config)
    # Readiness must be seen to fall before calls are refused.
    assert container["readinessProbe"]["periodSeconds"] < config.drain.notice_seconds


def test_the_root_is_read_only_and_what_is_written_has_a_place(service, container, config):
    secured = container["securityContext"]
    assert secured["readOnlyRootFilesystem"]
    assert not secured["allowPrivilegeEscalation"]
    assert secured["capabilities"] == {"drop": ["ALL"]}
    assert service["spec"]["predictor"]["securityContext"]["runAsNonRoot"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert {config.engine.cache_dir, "/tmp"} == set(mounts)
    volumes = {volume["name"] for volume in service["spec"]["predictor"]["volumes"]}
    assert set(mounts.values()) == volumes


def test_what_is_commented_out_loads_as_well(container):
    commented = [line.strip().removeprefix("# ") for line in MANIFEST.read_text().splitlines()]
    start = commented.index("- name: STORAGE_URI")
    more = yaml.safe_load("\n".join(commented[start : start + 4]))
    ours = {each["name"]: each["value"] for each in [*container["env"], *more]}
    assert ours.keys() > KSERVES_OWN
    assert load([], ours).engine.model == "sd15=/mnt/models"
