"""The files in deploy/ are true: they load, and their times fit together."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import tomllib
import venv
from pathlib import Path

import pytest
import yaml

from server.api.health import LIVENESS, READINESS
from server.config import load
from server.config.table import all_options
from tests.needs import need
from tests.project.stopping import longest_stop
from tools import npm
from tools.deploy.dashboard import PANELS, VARIABLES, render
from tools.deploy.paths import CheckError, call, command

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def test_the_configuration_loads_and_says_nothing_unknown() -> None:
    config = load(["--config", str(DEPLOY / "limner.toml")], {})
    assert config.listen.host == "0.0.0.0"


def test_the_unit_runs_a_command_that_exists_and_waits_for_the_drain() -> None:
    unit = configparser.ConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / "systemd/limner.service")
    service = unit["Service"]
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert Path(service["ExecStart"].split()[0]).name in scripts
    config = load(["--config", str(DEPLOY / "limner.toml")], {})
    assert float(service["TimeoutStopSec"]) > longest_stop(config)


def text_of(path: str) -> str:
    return (DEPLOY / path).read_text()


def test_the_pod_outlives_its_drain_and_its_probes_name_services_that_are_served() -> None:
    pod = yaml.safe_load(text_of("kustomize/base/deployment.yaml"))["spec"]
    spec = pod["template"]["spec"]
    (server,) = spec["containers"]
    config = load(["--config", str(DEPLOY / "kustomize/base/limner.toml")], {})
    stop = float(server["lifecycle"]["preStop"]["exec"]["command"][1])
    assert spec["terminationGracePeriodSeconds"] > stop + longest_stop(config)
    startup = server["startupProbe"]
    allowed = startup["periodSeconds"] * startup["failureThreshold"]
    assert config.engine.start_timeout_seconds < allowed < pod["progressDeadlineSeconds"]
    # The alert lets a start last as long as the probe does.
    (ready,) = re.findall(
        r"present_over_time\(limner_ready\[5m\] offset (\d+)m\)", text_of("prometheus/rules.yml")
    )
    assert int(ready) * 60 > allowed
    assert server["readinessProbe"]["grpc"]["service"] == startup["grpc"]["service"] == READINESS
    assert server["livenessProbe"]["grpc"]["service"] == LIVENESS
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert server[probe]["grpc"]["port"] == config.listen.port


@pytest.mark.parametrize("file", ["limner.toml", "kustomize/base/limner.toml"])
def test_the_grace_is_longer_than_the_longest_generation_that_the_measured_machines_had(file: str) -> None:
    """Nothing bounds a generation but the grace itself; so the slowest measured rate says what lasts longest."""
    page = (ROOT / "docs/benchmarks.md").read_text()
    (served,) = re.findall(r"^\| service, 32 calls in flight \| ([\d.]+)", page, re.MULTILINE)
    (gpu,) = re.findall(r"^\| Limner's engine loop, CUDA graphs.* ([\d.]+) \|$", page, re.MULTILINE)
    steps_a_second = 20 * min(float(served), float(gpu))  # of 20 steps with guidance
    config = load(["--config", str(DEPLOY / file)], {})
    largest = config.limits.max_images * config.limits.max_steps / steps_a_second
    # All that may be in flight, each one image with the default steps.
    full = config.admission.max_requests_in_flight * 20 / steps_a_second
    assert config.drain.grace_seconds > largest + full


def test_the_sizing_tables_figures_are_those_of_the_benchmarks() -> None:
    (rows,) = re.findall(r"^## Sizing\n\n.*\n.*\n((?:\|.*\n)+)", text_of("README.md"), re.MULTILINE)
    figures = set(re.findall(r"\d+\.\d+|\d+(?= and| MB)", rows)) - {"1.5"}
    assert len(figures) >= 6
    page = (ROOT / "docs/benchmarks.md").read_text().replace(",", "")
    assert figures <= set(re.findall(r"\d+\.\d+|\d+", page))


def test_with_tls_the_probes_ask_the_plain_port_and_the_files_are_those_of_the_secret() -> None:
    patch = yaml.safe_load(text_of("kustomize/components/tls/kustomization.yaml"))["patches"][0]["patch"]
    pod = yaml.safe_load(patch)["spec"]["template"]["spec"]
    (server,) = pod["containers"]
    more = yaml.safe_load(text_of("kustomize/components/mtls/kustomization.yaml"))["patches"][0]["patch"]
    (mutual,) = yaml.safe_load(more)["spec"]["template"]["spec"]["containers"]
    environment = {one["name"]: one["value"] for one in server["env"] + mutual["env"]}
    options = {option.variable: option for option in all_options()}
    assert environment.keys() <= options.keys()
    health = options["LIMNER_LISTEN_HEALTH_PORT"].convert(environment["LIMNER_LISTEN_HEALTH_PORT"], text=True)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert server[probe]["grpc"] == {"port": health}
    (mount,) = server["volumeMounts"]
    files = {Path(value) for name, value in environment.items() if name.startswith("LIMNER_TLS_")}
    # The names that cert-manager gives: https://cert-manager.io/docs/usage/certificate/
    assert files == {Path(mount["mountPath"]) / name for name in ("tls.crt", "tls.key", "ca.crt")}
    certificate = yaml.safe_load(text_of("kustomize/components/tls/certificate.yaml"))["spec"]
    assert pod["volumes"][0]["secret"]["secretName"] == certificate["secretName"]


def test_rules_dashboard_and_scaling_ask_for_metrics_that_exist() -> None:
    known = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE))
    known |= {f"{name}_{part}" for name in known for part in ("bucket", "count", "sum")}
    recorded = set(re.findall(r"record: (\S+)", text_of("prometheus/rules.yml")))
    scaled = yaml.safe_load(text_of("kustomize/components/keda/scaledobject.yaml"))
    rules = [
        rule for group in yaml.safe_load(text_of("prometheus/rules.yml"))["groups"] for rule in group["rules"]
    ]
    asked = [rule["expr"] for rule in rules]
    asked += [trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"]]
    asked += [expression for _, _, expression in PANELS]
    asked += VARIABLES.values()
    names = {name for one in asked for name in re.findall(r"\b(?:limner|grpc)[_:][\w:]+", one)}
    assert names
    assert names <= known | recorded


def test_the_dashboard_names_its_variables_alone_and_shows_everything_at_first() -> None:
    board = json.loads(render())
    variables = {one["name"]: one for one in board["templating"]["list"]}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(board["panels"]))) == variables.keys()
    assert {panel["datasource"]["uid"] for panel in board["panels"]} == {"${datasource}"}
    assert variables["datasource"]["query"] == "prometheus"
    for name in VARIABLES:
        # Not ".+": where Prometheus knows no namespaces, no label must match too.
        assert (variables[name]["allValue"], variables[name]["current"]["value"]) == (".*", "$__all")
    # A recording rule has the labels that it sums by.
    for rule in yaml.safe_load(text_of("prometheus/rules.yml"))["groups"][0]["rules"]:
        assert re.findall(r"sum by \((namespace)\b", rule["expr"])


def test_each_alert_has_an_entry_in_the_runbook_a_test_and_the_other_way_round() -> None:
    alerts = set(re.findall(r"alert: (\w+)", text_of("prometheus/rules.yml")))
    entries = set(re.findall(r"^## (\w+)", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE))
    assert alerts == entries
    assert alerts == set(re.findall(r"alertname: (\w+)", text_of("prometheus/rules.test.yml")))


def test_a_custom_resource_that_breaks_its_schema_is_refused() -> None:
    schemas = npm.TOOLS / "node_modules"
    need(schemas if schemas.exists() else None, "the schemas")
    scaled = yaml.safe_load(text_of("kustomize/components/keda/scaledobject.yaml"))
    call(command("node"), npm.TOOLS / "crd.mjs", stdin=json.dumps([scaled]))
    scaled["spec"]["maxReplicaCount"] = "ten"
    with pytest.raises(CheckError, match="maxReplicaCount"):
        call(command("node"), npm.TOOLS / "crd.mjs", stdin=json.dumps([scaled]))


def test_the_image_installs_the_torch_that_the_package_asks_for() -> None:
    dockerfile = text_of("docker/Dockerfile")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {one for one in project["dependencies"] if one.startswith("torch==")}
    assert set(re.findall(r"torch==[\w.]+", dockerfile)) == pinned
    for extras in ("tracing", "tensorrt,tracing"):
        assert f"limner-{project['version']}-py3-none-any.whl[{extras}]" in dockerfile


def test_the_images_own_commands_build_and_install_our_packages_in_a_clean_environment(
    tmp_path: Path,
) -> None:
    """All but what comes from an index: torch and its like are too much for a test, hence --no-deps."""
    dockerfile = text_of("docker/Dockerfile")
    source, wheels = tmp_path / "src", tmp_path / "wheels"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if name.startswith(("proto/", "clients/", "server/", "engine/")) or "/" not in name:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    (build,) = re.findall(r"^RUN (python -m pip wheel .*)$", dockerfile, re.MULTILINE)
    cpu, gpu = re.findall(r"/opt/limner/bin/pip (install .* /wheels/limner_client-\*\.whl)", dockerfile)
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True)
    path = f"{environment / 'bin'}:{os.environ['PATH']}"
    for line in (build, f"pip {cpu} --no-deps", f"pip {gpu} --no-deps"):
        subprocess.run(
            line.replace("/wheels", str(wheels)), shell=True, cwd=source, check=True, timeout=240,
            env={"PATH": path, "HOME": str(tmp_path), "PIP_ARGS": ""},
        )  # fmt: skip
    (entry,) = re.findall(r'^ENTRYPOINT \["([\w-]+)"\]', dockerfile, re.MULTILINE)
    (health,) = re.findall(r'CMD \["([\w-]+)", "health"', dockerfile)
    assert (environment / "bin" / entry).exists()
    assert (environment / "bin" / health).exists()
