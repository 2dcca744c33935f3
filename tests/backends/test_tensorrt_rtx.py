"""The real TensorRT-RTX takes our graph: its parser reads it and its builder makes engines, without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.backends import tensorrt_graph
from engine.backends.engine_cache import EngineCache
from engine.backends.tensorrt_builder import BuildSettings, build_engine
from engine.backends.tensorrt_errors import BuildFailedError, GraphRefusedError
from engine.backends.tensorrt_package import TensorRTPackage, load_package
from engine.backends.tensorrt_profiles import profiles_of
from engine.embedded import model_directory
from engine.models.model import load_model
from loadtests.gpu.onnx_export import export_unet
from tests.tinymodels import build_tiny_model

pytest.importorskip("tensorrt_rtx_bindings")

TARGETS = ("8.6",)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the logging of the test process alone."""
    monkeypatch.setattr("engine.loop.logs.configure_logging", lambda level: None)


@pytest.fixture(scope="module")
def package() -> TensorRTPackage:
    return load_package("tensorrt-rtx")


def export(root: Path, folder: Path, adapter: str | None, dtype: str, report: object = None) -> Path:
    """Export a UNet; write the manifest that ``engine.export`` writes beside it."""
    from tests.backends.tensorrt_bench import describe_graph

    model = load_model(root, adapter=adapter, dtype=getattr(torch, dtype))
    side = model.facts.default_height // model.facts.latent_scale
    export_unet(
        model.unet,
        folder / "unet.onnx",
        latents=(model.facts.latent_channels, side, side),
        text_tokens=model.facts.prompt_tokens,
        ip_tokens=model.facts.reference_tokens,
        width=model.unet.width,
    )
    describe_graph(folder, dtype=dtype)
    return folder / "unet.onnx"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def tiny_onnx(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tiny, tmp_path_factory.mktemp("onnx"), None, "float16")


def test_a_tiny_unet_builds_with_a_profile_for_each_bucket(package: TensorRTPackage, tiny_onnx: Path) -> None:
    profiles = profiles_of((1, 2), [(8, 8)], text_tokens=77, ip_tokens=4)
    told: list[str] = []
    built = build_engine(package, tiny_onnx, profiles, BuildSettings(targets=TARGETS), report=told.append)
    assert built.plan.nbytes > 100_000 and built.timing_cache == b""
    assert "Building engine" in told


def test_independent_rows_take_one_profile(package: TensorRTPackage, tiny_onnx: Path) -> None:
    profiles = profiles_of((1, 2), [(8, 8)], text_tokens=77, ip_tokens=4)
    settings = BuildSettings(targets=TARGETS, distributive_independence=True)
    with pytest.raises(BuildFailedError, match="multiple optimization profiles"):
        build_engine(package, tiny_onnx, profiles, settings)
    assert build_engine(package, tiny_onnx, profiles[:1], settings).plan.nbytes > 100_000


def test_a_file_that_is_no_graph_is_refused(package: TensorRTPackage, tmp_path: Path) -> None:
    path = tmp_path / "unet.onnx"
    path.write_bytes(b"no graph at all")
    profiles = profiles_of((1,), [(8, 8)], text_tokens=77, ip_tokens=4)
    with pytest.raises(GraphRefusedError, match=r"unet\.onnx: TensorRT's parser refuses the graph"):
        build_engine(package, path, profiles, BuildSettings(targets=TARGETS))


def test_the_command_builds_the_embedded_model_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from engine.__main__ import main

    monkeypatch.setattr(tensorrt_graph, "_export", export)
    command = ["build", str(model_directory()), "--backend", "tensorrt-rtx", "--target", "8.6"]
    command += ["--buckets", "2", "--output", str(tmp_path)]
    assert main(command) == 0
    (manifest,) = (tmp_path / "tensorrt-rtx").rglob("manifest.json")
    found = EngineCache(tmp_path).manifest(manifest.parent)
    assert found.key.buckets == (2,) and found.key.compute_capabilities == ("8.6",)
    assert found.key.dtype == "float16" and found.plans[0].bytes > 1_000_000
    assert main(command) == 0
    assert "nothing to do, built before" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--target", "9.0"], "no such compute capability; expected 7.5"),
        ([], "no NVIDIA driver; expected libcuda.so.1"),
        (["--size", "100x100", "--target", "8.6"], "not a multiple"),
    ],
)
def test_the_command_says_what_it_cannot_do(
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: list[str],
    words: str,
    tiny_onnx: Path,
) -> None:
    import shutil

    from engine.__main__ import main

    def copy(root: Path, folder: Path, adapter: str | None, dtype: str, report: object) -> None:
        shutil.copytree(tiny_onnx.parent, folder)

    if not changes and Path("/proc/driver/nvidia/version").exists():
        pytest.skip("there is a driver")
    monkeypatch.setattr(tensorrt_graph, "_export", copy)
    assert main(["build", str(tiny), "--backend", "tensorrt-rtx", "--output", str(tmp_path), *changes]) == 2
    assert words in capsys.readouterr().err
