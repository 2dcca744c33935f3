"""What we hold every pod to beside the schemas: Pod Security's `restricted`, and what a server needs to be replaced.

https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from collections.abc import Iterator, Sequence
from typing import Any

Resource = dict[str, Any]

PODS = {
    "Pod": (),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "ReplicationController": ("spec", "template"),
    "InferenceService": ("spec", "predictor"),
}
"""Where each kind has its pods. A pod in any other kind is a fault, since nobody would have looked at it."""
ENDING = frozenset({"Pod", "Job", "CronJob"})
"""Kinds that nobody calls, so that probes and the like are not asked of them."""
VOLUMES = frozenset(
    [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ]
)
EXCEPTIONS = {
    ("InferenceService", "limner", "has no PodDisruptionBudget"): (
        "an example of one replica, of which a budget would hold nothing; KServe names and labels the pods"
    ),
}
"""Kind, name and fault, with the reason why it may stand."""


def faults(resources: Sequence[Resource]) -> Iterator[str]:
    """Yield what is wrong with the pods of manifests that are applied together, but for `EXCEPTIONS`."""
    budgets = [
        one["spec"]["selector"]["matchLabels"] for one in resources if one["kind"] == "PodDisruptionBudget"
    ]
    for resource in resources:
        kind, name = resource["kind"], resource["metadata"]["name"]
        for fault in _faults(resource, budgets):
            if (kind, name, fault) not in EXCEPTIONS:
                yield f"{kind} {name}: {fault}"


def _faults(resource: Resource, budgets: Sequence[dict[str, str]]) -> Iterator[str]:
    kind = resource["kind"]
    if kind not in PODS:
        if _holds_containers(resource):
            yield "has pods where nobody looks at them"
        return
    template = resource
    for key in PODS[kind]:
        template = template[key]
    # KServe has the pod's fields in the predictor itself.
    pod = template if kind == "InferenceService" else template["spec"]
    yield from _pod_faults(pod)
    if kind in ENDING:
        return
    if not pod.get("topologySpreadConstraints"):
        yield "may have all replicas on one node"
    labels = template.get("metadata", {}).get("labels", {})
    if not any(budget.items() <= labels.items() for budget in budgets):
        yield "has no PodDisruptionBudget"
    for container in pod["containers"]:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe not in container:
                yield f"{container['name']}: has no {probe}"
        if "preStop" not in container.get("lifecycle", {}):
            yield f"{container['name']}: has no preStop"


def _holds_containers(value: Any) -> bool:
    if isinstance(value, dict):
        return "containers" in value or any(map(_holds_containers, value.values()))
    return isinstance(value, list) and any(map(_holds_containers, value))


def _pod_faults(pod: dict[str, Any]) -> Iterator[str]:
    if pod.get("automountServiceAccountToken") is not False:
        yield "is given a token of the API that it does not use"
    for volume in pod.get("volumes", []):
        if kinds := volume.keys() - VOLUMES - {"name"}:
            yield f"mounts {', '.join(sorted(kinds))}"
    if any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
        yield "shares a namespace with the node"
    whole = pod.get("securityContext", {})
    if whole.get("sysctls"):
        yield "sets the kernel's parameters"
    for part in ("initContainers", "containers", "ephemeralContainers"):
        for container in pod.get(part, []):
            # What a container says of itself holds, before what is said of the pod.
            own = container.get("securityContext", {})
            for fault in (*_security_faults({**whole, **own}), *_container_faults(container)):
                yield f"{container['name']}: {fault}"


def _security_faults(context: dict[str, Any]) -> Iterator[str]:
    if context.get("runAsNonRoot") is not True or context.get("runAsUser") == 0:
        yield "may run as root"
    if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "has no seccomp profile"
    if context.get("appArmorProfile", {}).get("type") == "Unconfined":
        yield "has no AppArmor profile"
    if context.get("procMount", "Default") != "Default":
        yield "sees all of /proc"
    if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
        yield "may gain privileges"
    capabilities = context.get("capabilities", {})
    if capabilities.get("drop") != ["ALL"] or capabilities.get("add"):
        yield "keeps capabilities"
    if not context.get("readOnlyRootFilesystem"):
        yield "can write to its root"


def _container_faults(container: dict[str, Any]) -> Iterator[str]:
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield "takes a port of the node"
    resources = container.get("resources", {})
    if (
        "memory" not in resources.get("limits", {})
        or not {"cpu", "memory"} <= resources.get("requests", {}).keys()
    ):
        yield "lacks requests or a limit of memory"
    image = container["image"].rpartition("/")[2]
    if ":" not in image or image.endswith(":latest"):
        yield f"its image {container['image']} has no fixed tag"
