"""What kustomize builds of deploy/, and what the server makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.config import Config, load
from tools.deploy.paths import KUSTOMIZE

MOUNTED_CONFIG = "--config=/etc/limner/limner.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """An overlay or a combination of components."""

    name: str
    resources: tuple[dict[str, Any], ...]

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [one for one in self.resources if one["kind"] == kind]

    @property
    def deployment(self) -> dict[str, Any]:
        (only,) = self.all("Deployment")
        return only

    @property
    def pod(self) -> dict[str, Any]:
        spec: dict[str, Any] = self.deployment["spec"]["template"]["spec"]
        return spec

    @property
    def server(self) -> dict[str, Any]:
        (only,) = self.pod["containers"]
        return only

    def config(self) -> Config:
        """Read the server's options as it would, but for those that come from Secrets. Raises ``ConfigError``."""
        arguments = [argument for argument in self.server["args"] if argument != MOUNTED_CONFIG]
        environment = {
            one["name"]: one["value"]
            for one in self.server.get("env", [])
            if "value" in one and not one["name"].endswith("_FILE")
        }
        return load(["--config", str(KUSTOMIZE / "base/limner.toml"), *arguments], environment)


def volume_at(path: str, pod: dict[str, Any]) -> dict[str, Any]:
    """Give the volume of a pod's only container in which a path lies, without its name."""
    (container,) = pod["containers"]
    at = Path(path)
    (name,) = (mount["name"] for mount in container["volumeMounts"] if at.is_relative_to(mount["mountPath"]))
    (volume,) = (one for one in pod["volumes"] if one["name"] == name)
    return {key: value for key, value in volume.items() if key != "name"}
