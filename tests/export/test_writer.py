"""An export says what it holds, holds what it says, and is there whole or not at all."""

from __future__ import annotations

import errno
import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.__main__ import main
from engine.export import writer
from engine.export.digest import digest_file
from engine.export.directory import ExportDirectory
from engine.export.errors import ExportWriteError, GraphError
from engine.export.graphs import graph_sources
from engine.export.settings import ExportSettings
from engine.export.trace import GraphSource
from engine.export.writer import export_model
from engine.models.errors import NotFiniteError, UnsupportedModelError
from engine.models.model import load_model
from tests.tinymodels import TinySettings, build_tiny_model

DYNAMIC = {"sample": ("B", 4, "h", "w"), "timestep": ("B",), "noise": ("B", 4, "h", "w")}


def quiet(line: str) -> None:
    """Tell nothing."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def export(root: Path) -> ExportDirectory:
    export_model(root, root.with_name("export"), ExportSettings(), quiet)
    return ExportDirectory.open(root.with_name("export"))


def test_the_manifest_describes_every_file(root: Path, export: ExportDirectory) -> None:
    manifest = export.manifest
    found = {path.relative_to(export.root).as_posix() for path in export.root.rglob("*") if path.is_file()}
    assert found == {"manifest.json", *(file.file for file in manifest.everything)}
    for file in manifest.everything:
        assert file == digest_file(export.root, export.root / file.file)
    assert {file.file for file in manifest.source} >= {"unet/config.json", "ip_adapter/base.safetensors"}
    assert all(file == digest_file(root, root / file.file) for file in manifest.source)
    assert manifest.facts == load_model(root).facts
    assert set(manifest.versions) == {"torch", "diffusers", "transformers", "onnx"}
    assert (manifest.opset, manifest.dtype, manifest.size) == (21, "float32", None)
    inputs = [spec.name for spec in manifest.graphs["unet"].inputs]
    assert inputs == ["sample", "timestep", "kv_text", "kv_ip", "ip_mask"]
    specs = (*manifest.graphs["unet"].inputs, *manifest.graphs["unet"].outputs)
    assert {spec.name: spec.shape for spec in specs}.items() >= DYNAMIC.items()
    assert list(manifest.graphs) == [
        "unet", "unet_regions", "vae_decoder", "text_encoder", "text_kv", "image_encoder",
        "adapters/base", "adapters/base_kv",
    ]  # fmt: skip
    regional = manifest.graphs["unet_regions"]
    assert regional.data == manifest.graphs["unet"].data, "the weights are written once"
    assert [spec.name for spec in regional.inputs if spec.name.startswith("regions_")] == [
        f"regions_{level}" for level in sorted({layer.level for layer in manifest.columns})
    ]


def test_every_graph_computes_what_its_module_does(root: Path, export: ExportDirectory) -> None:
    from onnx.reference import ReferenceEvaluator

    generator = torch.Generator().manual_seed(0)
    for source in graph_sources(load_model(root), None):
        path, _ = export.graph(source.name)
        if source.name in ("unet", "unet_regions", "vae_decoder"):
            continue  # the reference evaluator takes minutes for convolutions; tests/equivalence runs these
        given = {
            name: torch.randint(0, 300, value.shape, generator=generator)
            if value.dtype == torch.int64
            else torch.randn(value.shape, generator=generator)
            for name, value in source.inputs.items()
        }
        with torch.inference_mode():
            expected = source.module(*given.values())
        expected = expected if isinstance(expected, tuple) else (expected,)
        found = ReferenceEvaluator(str(path)).run(
            None, {name: value.numpy() for name, value in given.items()}
        )
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("settings", "norm", "kind", "sides"),
    [
        (ExportSettings(opset=20), "InstanceNormalization", "float32", ("h", "w")),
        (ExportSettings(dtype="float16", size=(64, 96)), "GroupNormalization", "float16", (8, 12)),
        (ExportSettings(dtype="bfloat16"), "GroupNormalization", "bfloat16", ("h", "w")),
    ],
    ids=("opset 20", "half and static", "bfloat16"),
)
def test_settings(
    root: Path, tmp_path: Path, settings: ExportSettings, norm: str, kind: str, sides: tuple[int | str, ...]
) -> None:
    manifest = export_model(root, tmp_path / "export", settings, quiet)
    sample, timestep, *_ = manifest.graphs["unet"].inputs
    assert (sample.dtype, timestep.dtype, sample.shape[2:]) == (kind, "float32", sides)
    graph = onnx.load(tmp_path / "export" / "unet.onnx", load_external_data=False)
    assert norm in {node.op_type for node in graph.graph.node}
    assert graph.opset_import[0].version == settings.chosen_opset == manifest.opset
    ExportDirectory.open(tmp_path / "export")


def test_settings_that_cannot_hold(root: Path, tmp_path: Path) -> None:
    for bad in ({"dtype": "int4"}, {"opset": 23}, {"dtype": "bfloat16", "opset": 21}, {"size": (0, 64)}):
        with pytest.raises(ValueError, match=r"possible|positive"):
            ExportSettings(**bad)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedModelError, match="multiples of 16; found 64x70"):
        export_model(root, tmp_path / "export", ExportSettings(size=(64, 70)), quiet)
    assert not list(tmp_path.iterdir())


def test_a_model_without_an_adapter(tmp_path: Path) -> None:
    root = build_tiny_model(tmp_path / "model", TinySettings(adapters=()))
    manifest = export_model(root, tmp_path / "export", ExportSettings(), quiet)
    assert manifest.adapters == ()
    assert list(manifest.graphs) == ["unet", "vae_decoder", "text_encoder", "text_kv"]
    assert ExportDirectory.open(tmp_path / "export").unconditional_tokens() == {}


def test_nothing_is_written_over(export: ExportDirectory, root: Path) -> None:
    with pytest.raises(ExportWriteError, match="exists already"):
        export_model(root, export.root, ExportSettings(), quiet)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let writing fail as on a full disk, at so many bytes a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_nothing(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with files_of_at_most(300_000), pytest.raises(ExportWriteError, match=r"could not be written.*too large"):
        export_model(root, tmp_path / "a" / "export", ExportSettings(), quiet)
    assert not list((tmp_path / "a").iterdir())

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer, "write_manifest", full)
    with pytest.raises(ExportWriteError, match="No space left on device"):
        export_model(root, tmp_path / "a" / "export", ExportSettings(), quiet)
    assert not list((tmp_path / "a").iterdir())


def test_a_folder_that_cannot_be_made(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportWriteError) as caught:
        export_model(root, tmp_path / "file" / "export", ExportSettings(), quiet)
    assert caught.value.path == tmp_path / "file"


def test_a_nan_weight_is_refused(root: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(root, tmp_path / "model")
    path = broken / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["conv_in.weight"][0, 0, 0, 0] = torch.nan
    save_file(tensors, path)
    with pytest.raises(NotFiniteError, match=r"conv_in\.weight"):
        export_model(broken, tmp_path / "export", ExportSettings(), quiet)
    assert not (tmp_path / "export").exists()


class Untraceable(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError("no graph here")


def test_what_cannot_be_traced_is_named(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = GraphSource(
        name="odd", module=Untraceable(), inputs={"x": torch.zeros(2)}, outputs=("y",), axes={}
    )
    monkeypatch.setattr(writer, "graph_sources", lambda *_: [source])
    with pytest.raises(GraphError, match=r"odd\.onnx.*no graph here"):
        export_model(root, tmp_path / "export", ExportSettings(), quiet)
    assert not list(tmp_path.iterdir())


def test_the_command(root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "export"
    assert main(["export", str(root), "--output", str(output), "--opset", "20"]) == 0
    told = capfd.readouterr().err
    for line in ("loading", "exporting unet", "exporting adapters/base_kv", "wrote", "8 graphs", "opset 20"):
        assert line in told
    assert json.loads((output / "manifest.json").read_text())["opset"] == 20
    assert main(["export", str(root), "--output", str(output)]) == 2
    assert "ExportWriteError" in capfd.readouterr().err
    assert main(["export", str(tmp_path), "--output", str(tmp_path / "other")]) == 2
    assert "NotAModelError" in capfd.readouterr().err
    with pytest.raises(SystemExit):
        main(["export", str(root), "--output", str(output), "--size", "64"])
