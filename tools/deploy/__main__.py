"""`make deploy-check`: hold every file of deploy/ against the tools that will read it."""

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tools import npm
from tools.deploy import generate, policy
from tools.deploy.dashboard import PANELS
from tools.deploy.envoy import DESCRIPTORS, configuration
from tools.deploy.kustomize import built
from tools.deploy.paths import DEPLOY, KUSTOMIZE, RULES, CheckError, MissingError, call, command
from tools.local_envoy import envoy_command

CUSTOM = (
    "cert-manager.io/",
    "gateway.envoyproxy.io/",
    "gateway.networking.k8s.io/",
    "keda.sh/",
    "monitoring.coreos.com/",
)
KSERVE = "serving.kserve.io/"
"""No npm package has KServe's schema, so of its resources the pod alone is held against one (docs/kserve.md)."""
INFERENCE_SERVICE = DEPLOY / "kserve" / "inferenceservice.yaml"


def manifests() -> None:
    """Build all; hold them, and what is applied as it stands, against the schemas and the policy."""
    for name, text in (*built(), (INFERENCE_SERVICE.name, INFERENCE_SERVICE.read_text())):
        try:
            hold(list(yaml.safe_load_all(text)))
        except CheckError as fault:
            raise CheckError(f"{name}: {fault}") from fault


def hold(resources: list[dict[str, Any]]) -> None:
    """Hold manifests against the schemas and the policy. Raises CheckError and MissingError."""
    own = [one for one in resources if not one["apiVersion"].startswith(CUSTOM)]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump_all(
            [pod_of(one) if one["apiVersion"].startswith(KSERVE) else one for one in own], file
        )
        file.flush()
        call(Path(sys.executable).parent / "kubernetes-validate", "--strict", "--quiet", file.name)
    custom = [one for one in resources if one["apiVersion"].startswith(CUSTOM)]
    if custom:
        call(command("node"), npm.TOOLS / "crd.mjs", stdin=json.dumps(custom))
    for fault in policy.faults(resources):
        raise CheckError(fault)


def pod_of(service: dict[str, Any]) -> dict[str, Any]:
    """Return the pod that KServe makes of an InferenceService: the predictor's fields, but for KServe's own."""
    spec = {key: value for key, value in service["spec"]["predictor"].items() if key != "minReplicas"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": service["metadata"], "spec": spec}


def images() -> None:
    """Lint the Dockerfile."""
    call(Path(sys.executable).parent / "hadolint", DEPLOY / "docker" / "Dockerfile")


def proxy() -> None:
    """Have Envoy read its configuration, as shipped and as written for other addresses."""
    replicas = ["10.0.0.5:50051", "[fd00::5]:50051"]
    for made in (
        configuration(descriptors=DESCRIPTORS),
        configuration(replicas=replicas, listen="[::]:8080", admin="[::1]:9901", descriptors=DESCRIPTORS),
    ):
        validate(made)


def validate(bootstrap: dict[str, Any]) -> None:
    """Have Envoy load a configuration without serving. Raises CheckError with what it says, and MissingError."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(bootstrap, file)
        file.flush()
        call(envoy_command(), "--mode", "validate", "--log-level", "warning", "-c", file.name)


def rules() -> None:
    """Check and test the rules."""
    promtool = command("promtool")
    call(promtool, "check", "config", DEPLOY / "prometheus" / "prometheus.yml")
    call(promtool, "test", "rules", RULES.with_name("rules.test.yml"))


def expressions() -> None:
    """Have promtool parse what the dashboard and KEDA ask, as rules: this promtool has no command for a query."""
    scaled = yaml.safe_load((KUSTOMIZE / "components" / "keda" / "scaledobject.yaml").read_text())
    asked = [expression for _, _, expression in PANELS]
    asked += [trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"]]
    group = [{"record": f"checked:expression:{n}", "expr": one} for n, one in enumerate(asked)]
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        yaml.safe_dump({"groups": [{"name": "asked", "rules": group}]}, file)
        file.flush()
        call(command("promtool"), "check", "rules", file.name)


CHECKS: tuple[Callable[[], None], ...] = (generate.check, images, proxy, rules, expressions, manifests)


def main() -> int:
    """Run every check; under CI=true a missing tool is a failure."""
    failed = False
    for check in CHECKS:
        name = f"{check.__module__.rpartition('.')[2]}.{check.__name__}".replace("__main__.", "")
        try:
            check()
        except CheckError as fault:
            failed = True
            print(f"FAILED {name}: {fault}")
        except MissingError as fault:
            failed |= os.environ.get("CI") == "true"
            print(f"left out {name}: {fault}")
        else:
            print(f"ok {name}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
