"""Write the files of deploy/ that are made of others; `--check` compares only."""

import sys
from pathlib import Path

import yaml

from tools.deploy.dashboard import render
from tools.deploy.paths import DEPLOY, KUSTOMIZE, RULES, CheckError

DASHBOARD = DEPLOY / "grafana" / "limner.json"
SHIPPED_DASHBOARD = KUSTOMIZE / "components" / "monitoring" / "limner.json"
"""The same once more: kustomize reads no file outside the folder of what names it."""
PROMETHEUS_RULE = KUSTOMIZE / "components" / "monitoring" / "rules.yaml"


def contents() -> dict[Path, str]:
    """Return what each generated file is to hold."""
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "limner"},
        "spec": yaml.safe_load(RULES.read_text()),
    }
    note = "# Made of deploy/prometheus/rules.yml by `python -m tools.deploy.generate`.\n"
    text = note + yaml.safe_dump(resource, sort_keys=False, width=110)
    return {DASHBOARD: render(), SHIPPED_DASHBOARD: render(), PROMETHEUS_RULE: text}


def check() -> None:
    """Raise CheckError if a committed file is not what would be generated."""
    for path, text in contents().items():
        if not path.exists() or path.read_text() != text:
            raise CheckError(f"{path.name} has drifted; run python -m tools.deploy.generate")


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        check()
    else:
        for path, text in contents().items():
            path.write_text(text)
