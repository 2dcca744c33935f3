"""What we hold every pod to beside the schemas; an exception would be named here with its reason. There is none."""

from collections.abc import Iterator
from typing import Any


def faults(resource: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with a Deployment or a Job."""
    if resource["kind"] not in ("Deployment", "Job"):
        return
    pod = resource["spec"]["template"]["spec"]
    context = pod.get("securityContext", {})
    if not context.get("runAsNonRoot"):
        yield "may run as root"
    if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "has no seccomp profile"
    if pod.get("automountServiceAccountToken") is not False:
        yield "is given a token of the API that it does not use"
    if any("hostPath" in volume for volume in pod.get("volumes", [])):
        yield "mounts a path of the node"
    if any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
        yield "shares a namespace with the node"
    for container in pod["containers"] + pod.get("initContainers", []):
        held = container.get("securityContext", {})
        if held.get("allowPrivilegeEscalation") is not False or held.get("privileged"):
            yield f"{container['name']}: may gain privileges"
        if held.get("capabilities", {}).get("drop") != ["ALL"] or held["capabilities"].get("add"):
            yield f"{container['name']}: keeps capabilities"
        if not held.get("readOnlyRootFilesystem"):
            yield f"{container['name']}: can write to its root"
        resources = container.get("resources", {})
        if (
            "memory" not in resources.get("limits", {})
            or not {"cpu", "memory"} <= resources.get("requests", {}).keys()
        ):
            yield f"{container['name']}: lacks requests or a limit of memory"
        image = container["image"].rpartition("/")[2]
        if ":" not in image or image.endswith(":latest"):
            yield f"{container['name']}: its image {container['image']} has no fixed tag"
