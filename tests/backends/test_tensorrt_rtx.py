"""The real TensorRT-RTX takes our exports: its parser reads the UNet and its builder makes engines, without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.backends.tensorrt.backend import TensorRTSettings
from engine.backends.tensorrt.builder import BuildSettings, build_engine
from engine.backends.tensorrt.cache import EngineCache
from engine.backends.tensorrt.errors import BuildFailedError, GraphRefusedError
from engine.backends.tensorrt.graph import unet_graph
from engine.backends.tensorrt.package import TensorRTPackage, load_package
from engine.backends.tensorrt.profiles import OPTIONAL, REQUIRED, Profile
from engine.embedded import model_directory
from engine.export.cache import cached_export
from engine.export.directory import ExportDirectory
from engine.export.settings import ExportSettings
from engine.export.writer import export_model
from tests.backends.real_tensorrt import real_tensorrt
from tests.tinymodels import TinySettings, TinyXLSettings, build_tiny_model, build_tiny_xl

real_tensorrt()

TARGETS = ("8.6",)
HALF = ExportSettings(adapter="base", dtype="float16")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the logging of the test process alone."""
    monkeypatch.setattr("engine.loop.logs.configure_logging", lambda level: None)


@pytest.fixture(scope="module")
def package() -> TensorRTPackage:
    return load_package("tensorrt-rtx")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny"), TinySettings(adapters=("base", "plus")))


@pytest.fixture(scope="module")
def export(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportDirectory:
    return cached_export(tiny, tmp_path_factory.mktemp("cache"), HALF, make=export_model)


def profiles(export: ExportDirectory, *buckets: int) -> tuple[Profile, ...]:
    return TensorRTSettings(buckets=buckets).profiles(export.manifest.facts)


def test_a_tiny_unet_builds_with_a_profile_for_each_bucket(
    package: TensorRTPackage, export: ExportDirectory
) -> None:
    told: list[str] = []
    graph, wanted = unet_graph(export), profiles(export, 1, 2)
    # Room for four references of the adapter that gives most tokens.
    assert wanted[0].ip_tokens == 4 * max(adapter.tokens for adapter in export.manifest.facts.adapters)
    built = build_engine(package, graph.path, wanted, BuildSettings(targets=TARGETS), report=told.append)
    assert built.plan.nbytes > 100_000 and built.timing_cache == b""
    assert "Building engine" in told


def test_a_tiny_sdxl_unet_builds_with_all_its_vectors(package: TensorRTPackage, tmp_path: Path) -> None:
    root = build_tiny_xl(tmp_path / "xl", TinyXLSettings(guidance_width=16))
    export = cached_export(root, tmp_path / "cache", HALF, make=export_model)
    graph = unet_graph(export)
    _, entry = export.graph("unet")
    # As DeviceBackend holds them: vectors in float32 whatever the weights are in.
    found = [(spec.name, spec.dtype) for spec in entry.inputs]
    assert found[:5] == [(name, "float32" if name == "timestep" else "float16") for name in REQUIRED]
    assert found[5:] == [(name, "float32") for name in OPTIONAL]
    built = build_engine(package, graph.path, profiles(export, 2), BuildSettings(targets=TARGETS))
    assert built.plan.nbytes > 100_000


def test_independent_rows_take_one_profile(package: TensorRTPackage, export: ExportDirectory) -> None:
    settings = BuildSettings(targets=TARGETS, distributive_independence=True)
    path, both = unet_graph(export).path, profiles(export, 1, 2)
    with pytest.raises(BuildFailedError, match="multiple optimization profiles"):
        build_engine(package, path, both, settings)
    assert build_engine(package, path, both[:1], settings).plan.nbytes > 100_000


def test_a_file_that_is_no_graph_is_refused(
    package: TensorRTPackage, export: ExportDirectory, tmp_path: Path
) -> None:
    path = tmp_path / "unet.onnx"
    path.write_bytes(b"no graph at all")
    with pytest.raises(GraphRefusedError, match=r"unet\.onnx: TensorRT's parser refuses the graph"):
        build_engine(package, path, profiles(export, 1), BuildSettings(targets=TARGETS))


def test_the_command_builds_the_embedded_model_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from engine.__main__ import main

    command = ["build", str(model_directory()), "--backend", "tensorrt-rtx", "--target", "8.6"]
    command += ["--buckets", "2", "--output", str(tmp_path)]
    assert main(command) == 0
    (manifest,) = (tmp_path / "tensorrt-rtx").rglob("manifest.json")
    found = EngineCache(tmp_path).manifest(manifest.parent)
    assert found.key.buckets == (2,) and found.key.compute_capabilities == ("8.6",)
    assert found.key.dtype == "float16" and found.plans[0].bytes > 1_000_000
    assert main(command) == 0
    assert "nothing to do, built before" in capsys.readouterr().err
    # An export is as good as the model that it was made of.
    (made,) = (path for path in (tmp_path / "exports").iterdir() if path.is_dir())
    assert main([*command[:1], str(made), *command[2:]]) == 0
    assert "nothing to do, built before" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--target", "9.0"], "no such compute capability; expected 7.5"),
        ([], "no NVIDIA driver; expected libcuda.so.1"),
        (["--size", "100x100", "--target", "8.6"], "not a multiple"),
        (["--dtype", "float32", "--target", "8.6"], "another type; expected float32; found float16"),
        (["--adapter", "plus", "--target", "8.6"], "another default adapter; expected plus; found base"),
        (["--lora", "style.safetensors", "--target", "8.6"], "LoRAs are fused when a model is exported"),
    ],
)
def test_the_command_says_what_it_cannot_do(
    export: ExportDirectory,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: list[str],
    words: str,
) -> None:
    from engine.__main__ import main

    if not changes and Path("/proc/driver/nvidia/version").exists():
        pytest.skip("there is a driver")
    command = ["build", str(export.root), "--backend", "tensorrt-rtx", "--output", str(tmp_path), *changes]
    assert main(command) == 2
    assert words in capsys.readouterr().err
