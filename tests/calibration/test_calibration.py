"""Calibration: what is drawn for it, what is noted of it, and the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.__main__ import main
from engine.backends.compiled.backend import CompiledBackend, CompiledSettings
from engine.backends.compiled.openvino_runtime import OpenVINOSettings
from engine.calibration import calibrate
from engine.calibration.calibrate import SETTINGS, Material, read_material
from engine.calibration.watching import WatchingRuntime
from engine.embedded.quality.generate import Order
from engine.export.activations import ACTIVATIONS, read_activations
from tests.backends.rows import row_of
from tests.compiled import exported
from tests.equivalence.harness import portrait
from tests.tinymodels import build_tiny_model

PICTURE = np.zeros((8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def test_material_is_taken_in_turns() -> None:
    orders = Material(prompts=["a", "b"], references=[PICTURE, PICTURE + 1], images=16).orders()
    assert [order.prompt for order in orders] == ["a", "b"] * 8
    assert [order.seed for order in orders] == list(range(16))
    assert {order.setting for order in orders} == set(SETTINGS)
    assert [number for number, order in enumerate(orders) if order.reference is None] == [7, 15]
    assert not any(
        order.reference is not None for order in Material(prompts=["a"], references=[], images=4).orders()
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
    import torch

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


def test_the_command(
    root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Order] = []
    orders = Material.orders
    monkeypatch.setattr(Material, "orders", lambda material: drawn.extend(orders(material)) or drawn)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a portrait\n")
    (root / ACTIVATIONS).write_text("what is there is no obstacle")
    command = ["calibrate", str(root), "--prompts", str(prompts), "--cache-dir", str(tmp_path / "cache")]
    assert main([*command, "--images", "4", "--threads", "1"]) == 0
    told = capfd.readouterr().err
    assert "4 of 4 portraits" in told and "in int8 unet is off by" in told and "vae_decoder" in told
    assert len(drawn) == 4
    assert len(read_activations(root / ACTIVATIONS)) > 10
    other = tmp_path / "other.safetensors"
    assert main([*command, "--images", "4", "--threads", "1", "--output", str(other)]) == 0
    assert len(read_activations(other)) > 10

    monkeypatch.setattr(calibrate, "LARGEST_ERROR", 1e-5)
    assert main([*command, "--images", "4", "--threads", "1", "--output", str(tmp_path / "bad")]) == 2
    assert "CalibrationError" in capfd.readouterr().err and not (tmp_path / "bad").exists()
    prompts.write_text("")
    assert main(command) == 2
    assert "has no prompt" in capfd.readouterr().err
    assert main(["calibrate", str(tmp_path), "--prompts", str(prompts)]) == 2
    assert "NotAModelError" in capfd.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, "--images", "0"])
