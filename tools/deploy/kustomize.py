"""What kustomize makes of deploy/kustomize: the overlays, and combinations of components over the base."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml

from tools.deploy.paths import KUSTOMIZE, CheckError, call, command

COMBINATIONS = (
    ("gpu", "weights-oci"),
    ("gpu", "mig", "weights-pvc"),
    ("redis", "network-policy"),
    ("gateway", "network-policy"),
    ("monitoring", "keda"),
    ("gpu", "engine-build", "weights-pvc"),
    ("gpu", "engine-build", "weights-oci"),
    ("gpu", "engine-build", "mig", "weights-pvc"),
    ("tls",),
    ("tls", "mtls", "network-policy"),
    ("tls", "gateway", "gateway-tls"),
)
"""Components over the bare base; together they hold each component at least once, which is checked."""


def built() -> Iterator[tuple[str, str]]:
    """Yield name and manifests of every overlay and every combination. Raises CheckError and MissingError."""
    overlays = sorted(path.name for path in (KUSTOMIZE / "overlays").iterdir())
    components = {path.name for path in (KUSTOMIZE / "components").iterdir()}
    if unbuilt := components - {name for names in COMBINATIONS for name in names}:
        raise CheckError(f"no combination holds {', '.join(sorted(unbuilt))}")
    kubectl = command("kubectl")
    # A copy: a combination is a folder beside the base, since kustomize takes no absolute paths, and what is
    # stopped half-way must leave nothing in the tree.
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "kustomize"
        shutil.copytree(KUSTOMIZE, tree)
        for name in overlays:
            yield name, call(kubectl, "kustomize", tree / "overlays" / name)
        for names in COMBINATIONS:
            combination = tree / "combination"
            combination.mkdir(exist_ok=True)
            text = {
                "namespace": "limner",
                "resources": ["../base"],
                "components": [f"../components/{name}" for name in names],
            }
            (combination / "kustomization.yaml").write_text(yaml.safe_dump(text))
            yield "+".join(names), call(kubectl, "kustomize", combination)
