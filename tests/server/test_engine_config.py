"""Which engines a configuration asks for, and which of them cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.config import load
from server.config.models import served_models
from tests.server.configuring import problems, write


def test_models_have_names_and_engines_of_their_own() -> None:
    flags = [
        "--model",
        "/m/sd15",
        "--engine-models",
        "/m/sdxl/, turbo=/m/b,./a=b",
        "--engine-adapter",
        "plus",
    ]
    models = served_models(load([*flags, "--engine-loras", "/l", "--engine-threads", "3"], {}).engine)
    assert [(model.name, model.options.model) for model in models] == [
        ("", "/m/sd15"),
        ("sdxl", "/m/sdxl/"),
        ("turbo", "/m/b"),
        ("a=b", "./a=b"),
    ]
    assert [(model.options.adapter, model.options.loras) for model in models] == [
        ("plus", ("/l",)),
        *[("", ())] * 3,
    ]
    assert {model.options.threads for model in models} == {3}
    (alone,) = served_models(load(["--model", "mine=/m/sd15"], {}).engine)
    assert (alone.name, alone.options.model) == ("mine", "/m/sd15")


def test_a_model_has_an_engine_on_each_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(5)))

    def engines(*flags: str) -> list[tuple[str, int]]:
        (model,) = served_models(load(list(flags), {}).engine)
        return [(each.device, each.threads) for each in model.engines]

    assert engines() == [("cpu", 0)]
    assert engines("--engine-device", "cuda:1") == [("cuda:1", 0)]
    assert engines("--engine-devices", "cuda:0,cuda:1") == [("cuda:0", 0), ("cuda:1", 0)]
    # Several on the CPU share its cores, unless they are told how many each has.
    assert engines("--engine-devices", "cpu,cpu") == [("cpu", 2), ("cpu", 2)]
    assert engines("--engine-devices", "cpu,cuda:0,cpu") == [("cpu", 2), ("cuda:0", 0), ("cpu", 2)]
    assert engines("--engine-devices", "cpu," * 7 + "cpu") == [("cpu", 1)] * 8
    assert engines("--engine-devices", "cpu,cpu", "--engine-threads", "4") == [("cpu", 4), ("cpu", 4)]
    assert engines("--engine-devices", "cpu:0,cpu:0") == [("cpu:0", 2), ("cpu:0", 2)]
    assert engines("--engine-devices", "cpu") == [("cpu", 0)]


def test_lanes_for_which_an_engine_has_too_few_threads_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(2)))
    (problem,) = problems(["--engine-devices", "cpu,cpu", "--engine-lanes", "2"], {})
    assert problem == "engine.lanes: 2 is more than the CPU threads of an engine (1)"
    assert load(["--engine-lanes", "2"], {}).engine.lanes == 2


def test_a_device_has_a_name(tmp_path: Path) -> None:
    file = tmp_path / "limner.toml"
    file.write_text('[engine]\ndevices = [""]\n')
    (problem,) = problems(["--config", str(file)], {})
    assert "engine.devices" in problem


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (["--engine-models", "/a/sd15,/b/sd15"], "sd15"),
        (["--engine-models", "x=/a,x=/b"], "x"),
        (["--model", "/a/sd15", "--engine-models", "/b/sd15"], "sd15"),
        (["--model", "x=/a", "--engine-models", "/b/x"], "x"),
    ],
)
def test_a_model_name_that_is_used_twice_is_refused(flags: list[str], name: str) -> None:
    (problem,) = problems(flags, {})
    assert f"engine.models: the name '{name}' is used 2 times" in problem


def test_a_model_without_a_directory_is_refused(tmp_path: Path) -> None:
    assert problems(["--engine-models", "x="], {}) == ("engine.models: 'x=' names no directory",)
    file = write(tmp_path, "[engine]\nmodels = ['']\n")
    assert problems(["--config", file], {}) == ("engine.models: '' names no directory",)
    assert "names no directory" in problems(["--engine-models", "/"], {})[0]
