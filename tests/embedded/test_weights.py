import hashlib
import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from PIL import Image

from engine.embedded import model_directory, reference_portraits
from tests.tinymodels import open_pipeline

LIMIT_BYTES = 40_000_000
WEIGHTS = model_directory()


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, engine.embedded as e; e.reference_portraits(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_checksums_match_and_cover_every_file() -> None:
    lines = (WEIGHTS / "SHA256SUMS").read_text().splitlines()
    listed = {name: digest for digest, name in (line.split("  ") for line in lines)}
    present = {p.relative_to(WEIGHTS).as_posix() for p in WEIGHTS.rglob("*") if p.is_file()}
    assert present - set(listed) == {"SHA256SUMS", "MODEL_CARD.md"}
    for name, digest in listed.items():
        assert hashlib.sha256((WEIGHTS / name).read_bytes()).hexdigest() == digest, name


def test_weights_stay_small() -> None:
    assert sum(p.stat().st_size for p in WEIGHTS.rglob("*") if p.is_file()) <= LIMIT_BYTES


def test_reference_portraits_are_256_pixels_wide() -> None:
    portraits = reference_portraits()
    assert 6 <= len(portraits) <= 8
    for path in portraits.values():
        with Image.open(path) as image:
            assert (image.format, image.size, image.mode) == ("PNG", (256, 256), "RGB")


def test_schedule_is_stable_diffusions_with_v_prediction() -> None:
    config = json.loads((WEIGHTS / "scheduler/scheduler_config.json").read_text())
    wanted = {
        "_class_name": "DDIMScheduler",
        "beta_schedule": "scaled_linear",
        "prediction_type": "v_prediction",
        "steps_offset": 1,
        "clip_sample": False,
        "set_alpha_to_one": False,
    }
    assert {key: config[key] for key in wanted} == wanted


@pytest.fixture(scope="module")
def pipeline() -> Any:
    (adapter,) = (path.stem for path in (WEIGHTS / "ip_adapter").glob("*.safetensors"))
    return open_pipeline(WEIGHTS, adapter=adapter)


def draw(pipeline: Any, prompt: str, scale: float) -> Image.Image:
    pipeline.set_ip_adapter_scale(scale)
    with Image.open(next(iter(reference_portraits().values()))) as portrait:
        image: Image.Image = pipeline(
            prompt,
            ip_adapter_image=portrait,
            num_inference_steps=3,
            generator=torch.Generator().manual_seed(0),
        ).images[0]
    return image


def test_scale_and_prompt_each_change_the_picture(pipeline: Any) -> None:
    pictures = [
        draw(pipeline, "a person at the beach", 0.0),
        draw(pipeline, "a person at the beach", 1.0),
        draw(pipeline, "a person in a forest", 1.0),
    ]
    assert {picture.size for picture in pictures} == {(128, 128)}
    assert len({picture.tobytes() for picture in pictures}) == 3


def test_any_text_becomes_77_tokens(pipeline: Any) -> None:
    tokenizer = pipeline.tokenizer
    for text in ("", "a person " * 200, "日本語 🎉 ünïcödé \x00 \n", "مرحبا"):
        ids = tokenizer(text, padding="max_length", max_length=77, truncation=True).input_ids
        assert len(ids) == 77
        assert max(ids) < len(tokenizer)
        assert ids[0] == tokenizer.bos_token_id
    assert torch.tensor(tokenizer("").input_ids).tolist() == [tokenizer.bos_token_id, tokenizer.eos_token_id]
