import hashlib
import json
import subprocess
import sys

import pytest
import torch
from PIL import Image

from engine.embedded import model_directory, reference_portraits

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
def pipeline() -> object:
    from engine.embedded.recipe.sheets import load_pipeline

    return load_pipeline(WEIGHTS)


def test_pipeline_loads_offline_and_draws(pipeline: object) -> None:
    from engine.embedded.recipe.sheets import generate

    portrait = Image.open(next(iter(reference_portraits().values())))
    (image,) = generate(pipeline, ["a person at the beach"], [portrait], steps=2)
    assert image.size == (128, 128)


def test_scale_and_prompt_each_change_the_picture(pipeline: object) -> None:
    from engine.embedded.recipe.sheets import generate

    portrait = Image.open(next(iter(reference_portraits().values())))

    def draw(prompt: str, scale: float) -> bytes:
        return generate(pipeline, [prompt], [portrait], scale=scale, steps=3)[0].tobytes()

    plain, adapted = draw("a person at the beach", 0.0), draw("a person at the beach", 1.0)
    elsewhere = draw("a person in a forest", 1.0)
    assert len({plain, adapted, elsewhere}) == 3


def test_any_text_becomes_77_tokens(pipeline: object) -> None:
    tokenizer = pipeline.tokenizer  # type: ignore[attr-defined]
    for text in ("", "a person " * 200, "日本語 🎉 ünïcödé \x00 \n", "مرحبا"):
        ids = tokenizer(text, padding="max_length", max_length=77, truncation=True).input_ids
        assert len(ids) == 77
        assert max(ids) < len(tokenizer)
        assert ids[0] == tokenizer.bos_token_id
    assert torch.tensor(tokenizer("").input_ids).tolist() == [tokenizer.bos_token_id, tokenizer.eos_token_id]


def test_training_adapter_equals_diffusers() -> None:
    from diffusers import UNet2DConditionModel

    from engine.embedded.recipe.adapter import AdaptedUnet
    from engine.embedded.recipe.unet import build_unet

    torch.manual_seed(0)
    ours = AdaptedUnet(build_unet(), embed_width=32).eval()
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    theirs: UNet2DConditionModel = build_unet().eval()
    theirs.load_state_dict(ours.plain_weights())
    adapter = ours.adapter_weights()
    state = {
        "image_proj": {
            k.removeprefix("image_proj."): v for k, v in adapter.items() if k.startswith("image_proj.")
        },
        "ip_adapter": {
            k.removeprefix("ip_adapter."): v for k, v in adapter.items() if k.startswith("ip_adapter.")
        },
    }
    theirs._load_ip_adapter_weights([state])
    sample, embeds = torch.randn(2, 4, 16, 16), torch.randn(2, 32)
    text = torch.randn(2, 77, theirs.config.cross_attention_dim)
    steps = torch.tensor([900, 10])
    with torch.no_grad():
        mine = ours(sample, steps, text, embeds, torch.ones(2))
        other = theirs(sample, steps, text, added_cond_kwargs={"image_embeds": [embeds[:, None]]}).sample
    torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)
