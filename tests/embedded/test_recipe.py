"""The whole recipe in small: every stage for a moment, then the export through diffusers' pipeline."""

import argparse
from pathlib import Path

import pytest
import torch
from PIL import Image

from engine.embedded.recipe import stages
from engine.embedded.recipe.training import StageMissingError
from tests.tinymodels import open_pipeline

COUNTS = {"TRAIN_SCENES": 2, "TEST_PERSONS": 34, "TEST_SCENES": 2, "CALIBRATION_PERSONS": 4}


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    for name, count in COUNTS.items():
        monkeypatch.setattr(stages, name, count)
    return argparse.Namespace(
        cache=tmp_path, weights=tmp_path / "weights", workers=1, minutes=0.001, persons=36, device="cpu"
    )


def test_a_stage_says_what_it_lacks(options: argparse.Namespace) -> None:
    with pytest.raises(StageMissingError, match="train the vae stage first"):
        stages.unet(options)


def test_every_stage_leaves_what_the_next_one_needs(
    options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in (stages.vae, stages.clip, stages.image, stages.unet, stages.adapter, stages.export):
        stage(options)
    # A UNet that was not trained is as far off as it likes.
    monkeypatch.setattr("engine.calibration.calibrate.LARGEST_ERROR", 10.0)
    stages.calibrate(options)
    listed = {line.split()[1] for line in (options.weights / "SHA256SUMS").read_text().splitlines()}
    assert "activations.safetensors" in listed
    train = options.cache / "train"
    for sheet, rows in (("vae_sheet", 2), ("unet_sheet", 2), ("adapter_sheet", 2)):
        with Image.open(train / f"{sheet}.png") as image:
            assert image.height == rows * 128
    assert {path.stem for path in train.glob("*.csv")} == {"vae", "clip", "image", "unet", "adapter"}
    pipeline = open_pipeline(options.weights, adapter="ip-adapter_limner")
    picture = pipeline(
        "a person at the beach",
        ip_adapter_image=Image.new("RGB", (128, 128)),
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
    ).images[0]
    assert picture.size == (128, 128)
    assert (options.weights / "limner.json").exists()
