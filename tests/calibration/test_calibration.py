"""Calibration: what is drawn for it, what is noted of it, and the command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.__main__ import main
from engine.backends.compiled.backend import CompiledBackend, CompiledSettings
from engine.backends.compiled.openvino_runtime import OpenVINOSettings
from engine.backends.options import UnknownBackendError
from engine.calibration import calibrate
from engine.calibration.calibrate import OTHERS, Material, read_material, settings_of
from engine.calibration.watching import WatchingRuntime
from engine.embedded.quality.generate import Order
from engine.embedded.quality.settings import MAIN
from engine.export.activations import ACTIVATIONS, read_activations, weights_of
from engine.export.digest import digest_file
from engine.export.source import source_files
from engine.loop.announcement import model_info
from engine.models.model import load_model
from tests.backends.rows import row_of
from tests.compiled import NEEDS_INT8, exported
from tests.equivalence.harness import portrait
from tests.tinymodels import LCM, TinySettings, build_tiny_model

WAYS = (MAIN, replace(MAIN, guidance_scale=7.5), replace(MAIN, sampler="euler"))
PICTURE = np.zeros((8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def test_material_is_taken_in_turns() -> None:
    orders = Material(prompts=["a", "b"], references=[PICTURE, PICTURE + 1], images=16).orders(WAYS)
    assert [order.prompt for order in orders] == ["a", "b"] * 8
    assert [order.seed for order in orders] == list(range(16))
    assert {order.setting for order in orders} == set(WAYS)
    assert [number for number, order in enumerate(orders) if order.reference is None] == [7, 15]
    assert not any(
        order.reference is not None for order in Material(prompts=["a"], references=[], images=4).orders(WAYS)
    )


def test_material_is_read(tmp_path: Path) -> None:
    prompts, references = tmp_path / "prompts.txt", tmp_path / "people"
    prompts.write_text("a portrait\n\n  einmal schön  \n", encoding="utf-8")
    references.mkdir()
    portrait(0).save(references / "a.png")
    found = read_material(prompts, references, 4)
    assert list(found.prompts) == ["a portrait", "einmal schön"]
    assert [picture.shape for picture in found.references] == [(100, 80, 3)]


@pytest.mark.parametrize("missing", ["prompts", "people"])
def test_material_that_is_none(tmp_path: Path, missing: str) -> None:
    prompts, references = tmp_path / "prompts.txt", tmp_path / "people"
    prompts.write_text("\n" if missing == "prompts" else "a portrait")
    references.mkdir()
    with pytest.raises(ValueError, match=rf"{missing}.* has no"):
        read_material(prompts, references, 4)


def test_padding_is_not_noted(root: Path) -> None:
    """A row by itself, in a bucket of four, leaves what it leaves in a bucket of one."""
    noted = {}
    for bucket in (1, 4):
        runtime = WatchingRuntime(OpenVINOSettings(threads=1))
        backend = CompiledBackend(exported(root), runtime, CompiledSettings(buckets=(bucket,)))
        slot = backend.place(row_of(backend, backend.encode_prompts(["a portrait"])[0]))
        sample = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        backend.predict_noise([slot], sample, torch.tensor([500.0]), bucket)
        noted[bucket] = runtime.ranges
    assert noted[1].keys() == noted[4].keys() and len(noted[1]) > 10
    for name, found in noted[1].items():
        assert found.low.shape == found.high.shape and (found.low < found.high).any()
        np.testing.assert_allclose(found.low, noted[4][name].low, rtol=0, atol=1e-4)
        np.testing.assert_allclose(found.high, noted[4][name].high, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "ways"),
    [(TinySettings(), 1 + len(OTHERS)), (LCM, 1)],
    ids=["not distilled", "distilled"],
)
def test_a_model_is_drawn_with_as_it_is_used(tmp_path: Path, settings: TinySettings, ways: int) -> None:
    facts = load_model(build_tiny_model(tmp_path / "model", settings)).facts
    found = settings_of(facts)
    info = model_info(facts)
    assert len(found) == ways
    assert (found[0].sampler, found[0].steps) == (info.default_sampler, info.default_steps)
    assert found[0].guidance_scale == info.default_guidance_scale


@NEEDS_INT8
def test_a_model_without_an_adapter(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "model", TinySettings(adapters=()))
    material = Material(prompts=["a portrait"], references=[], images=4)
    found = calibrate.calibrate(model, tmp_path / "cache", material, threads=1)
    assert found.errors.keys() == {"unet", "vae_decoder"}
    with pytest.raises(ValueError, match="no adapter for references"):
        calibrate.calibrate(model, tmp_path / "cache", replace(material, references=[PICTURE]), threads=1)


def test_a_cpu_that_cannot_tell_is_told(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    with pytest.raises(UnknownBackendError, match="VNNI"):
        calibrate.calibrate(root, tmp_path, Material(prompts=["a"], references=[], images=4))


@NEEDS_INT8
def test_the_command(
    root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # It would write to what captures this test, for the rest of the process.
    monkeypatch.setattr("engine.loop.logs.configure_logging", lambda level: None)
    drawn: list[Order] = []
    orders = Material.orders
    monkeypatch.setattr(
        Material, "orders", lambda material, ways: drawn.extend(orders(material, ways)) or drawn
    )
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a portrait\n")
    own = weights_of(digest_file(root, path) for path in source_files(root))
    (root / ACTIVATIONS).write_text("what is there is no obstacle")
    command = ["calibrate", str(root), "--prompts", str(prompts), "--cache-dir", str(tmp_path / "cache")]
    assert main([*command, "--images", "4", "--threads", "1"]) == 0
    told = capfd.readouterr().err
    assert "4 of 4 portraits" in told and "in int8 unet is off by" in told and "vae_decoder" in told
    assert len(drawn) == 4
    assert len(read_activations(root / ACTIVATIONS, own)) > 10
    other = tmp_path / "other.safetensors"
    assert main([*command, "--images", "4", "--threads", "1", "--output", str(other)]) == 0
    assert len(read_activations(other, own)) > 10

    monkeypatch.setattr(calibrate, "LARGEST_ERROR", 1e-5)
    assert main([*command, "--images", "4", "--threads", "1", "--output", str(tmp_path / "bad")]) == 2
    assert "CalibrationError" in capfd.readouterr().err and not (tmp_path / "bad").exists()
    assert main([*command, "--output", str(tmp_path / "nowhere" / "file")]) == 2
    assert "cannot be written to" in capfd.readouterr().err
    prompts.write_text("")
    assert main(command) == 2
    assert "has no prompt" in capfd.readouterr().err
    assert main(["calibrate", str(tmp_path), "--prompts", str(prompts)]) == 2
    assert "NotAModelError" in capfd.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, "--images", "0"])
