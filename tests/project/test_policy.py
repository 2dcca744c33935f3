"""The policy refuses each thing that it forbids, wherever it stands."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from tools.deploy import policy
from tools.deploy.__main__ import INFERENCE_SERVICE
from tools.deploy.paths import KUSTOMIZE

LABELS = {"app.kubernetes.io/name": "limner"}


@pytest.fixture
def deployment() -> dict[str, Any]:
    found = yaml.safe_load((KUSTOMIZE / "base/deployment.yaml").read_text())
    found["spec"]["template"]["metadata"] = {"labels": LABELS}
    found["spec"]["template"]["spec"]["containers"][0]["image"] = "limner:1"
    return found


@pytest.fixture
def budget() -> dict[str, Any]:
    found = yaml.safe_load((KUSTOMIZE / "base/poddisruptionbudget.yaml").read_text())
    assert found["spec"]["selector"] == {"matchLabels": LABELS}
    return found


def put(document: Any, path: str, value: Any) -> None:
    *way, last = path.split(".")
    for key in way:
        document = document[int(key)] if isinstance(document, list) else document.setdefault(key, {})
    if value is None:
        del document[last]
    else:
        document[last] = value


def test_what_is_shipped_has_no_fault(deployment: Any, budget: Any) -> None:
    assert list(policy.faults([deployment, budget])) == []


FORBIDDEN = [
    ("securityContext.runAsNonRoot", False, "server: may run as root"),
    ("securityContext.runAsUser", 0, "server: may run as root"),
    ("securityContext.seccompProfile.type", "Unconfined", "server: has no seccomp profile"),
    ("securityContext.sysctls", [{"name": "kernel.shm_rmid_forced"}], "sets the kernel's parameters"),
    ("automountServiceAccountToken", None, "is given a token of the API that it does not use"),
    ("hostNetwork", True, "shares a namespace with the node"),
    ("volumes", [{"name": "cache", "hostPath": {"path": "/"}}], "mounts hostPath"),
    ("topologySpreadConstraints", None, "may have all replicas on one node"),
    ("containers.0.securityContext.runAsNonRoot", False, "server: may run as root"),
    ("containers.0.securityContext.runAsUser", 0, "server: may run as root"),
    ("containers.0.securityContext.seccompProfile", {"type": "Unconfined"}, "server: has no seccomp profile"),
    (
        "containers.0.securityContext.appArmorProfile",
        {"type": "Unconfined"},
        "server: has no AppArmor profile",
    ),
    ("containers.0.securityContext.procMount", "Unmasked", "server: sees all of /proc"),
    ("containers.0.securityContext.privileged", True, "server: may gain privileges"),
    ("containers.0.securityContext.allowPrivilegeEscalation", None, "server: may gain privileges"),
    ("containers.0.securityContext.capabilities.add", ["NET_RAW"], "server: keeps capabilities"),
    ("containers.0.securityContext.capabilities.drop", ["NET_RAW"], "server: keeps capabilities"),
    ("containers.0.securityContext.readOnlyRootFilesystem", False, "server: can write to its root"),
    ("containers.0.ports", [{"containerPort": 1, "hostPort": 1}], "server: takes a port of the node"),
    ("containers.0.resources.limits.memory", None, "server: lacks requests or a limit of memory"),
    ("containers.0.resources.requests.cpu", None, "server: lacks requests or a limit of memory"),
    ("containers.0.image", "registry:5000/limner", "server: its image registry:5000/limner has no fixed tag"),
    ("containers.0.image", "limner:latest", "server: its image limner:latest has no fixed tag"),
    ("containers.0.startupProbe", None, "server: has no startupProbe"),
    ("containers.0.readinessProbe", None, "server: has no readinessProbe"),
    ("containers.0.livenessProbe", None, "server: has no livenessProbe"),
    ("containers.0.lifecycle", None, "server: has no preStop"),
]


@pytest.mark.parametrize(("path", "value", "fault"), FORBIDDEN)
def test_what_is_forbidden_is_named(path: str, value: Any, fault: str, deployment: Any, budget: Any) -> None:
    put(deployment["spec"]["template"]["spec"], path, value)
    assert list(policy.faults([deployment, budget])) == [f"Deployment limner: {fault}"]


@pytest.mark.parametrize("part", ["initContainers", "ephemeralContainers"])
def test_other_containers_are_looked_at(part: str, deployment: Any, budget: Any) -> None:
    pod = deployment["spec"]["template"]["spec"]
    other = copy.deepcopy(pod["containers"][0]) | {"name": "other"}
    other["securityContext"]["runAsUser"] = 0
    pod[part] = [other]
    assert list(policy.faults([deployment, budget])) == ["Deployment limner: other: may run as root"]


@pytest.mark.parametrize("kind", sorted(policy.PODS))
def test_every_kind_that_has_pods_is_looked_at(kind: str, deployment: Any) -> None:
    template = deployment["spec"]["template"]
    template["spec"]["containers"][0]["securityContext"]["privileged"] = True
    resource: Any = {"kind": kind, "metadata": {"name": "other"}}
    inside = template["spec"] if kind == "InferenceService" else template
    if policy.PODS[kind]:
        put(resource, ".".join(policy.PODS[kind]), inside)
    else:
        resource |= template
        resource["metadata"] = {"name": "other"}
    assert f"{kind} other: server: may gain privileges" in set(policy.faults([resource]))


def test_pods_where_nobody_looks_are_refused(deployment: Any) -> None:
    unknown = {"kind": "Rollout", "metadata": {"name": "r"}, "spec": {"of": [deployment["spec"]["template"]]}}
    assert list(policy.faults([unknown])) == ["Rollout r: has pods where nobody looks at them"]


def test_a_budget_must_be_there_and_mean_these_pods(deployment: Any, budget: Any) -> None:
    expected = ["Deployment limner: has no PodDisruptionBudget"]
    assert list(policy.faults([deployment])) == expected
    budget["spec"]["selector"]["matchLabels"] = {"app.kubernetes.io/name": "other"}
    assert list(policy.faults([deployment, budget])) == expected


def test_each_exception_is_one_and_has_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = yaml.safe_load(INFERENCE_SERVICE.read_text())
    assert list(policy.faults([shipped])) == []
    exceptions = policy.EXCEPTIONS
    assert all(exceptions.values())
    monkeypatch.setattr(policy, "EXCEPTIONS", {})
    assert set(policy.faults([shipped])) == {f"{kind} {name}: {fault}" for kind, name, fault in exceptions}
