"""Prompts, references and latents go in and out as in diffusers' pipeline."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.models.model import load_model
from engine.models.preprocess import ReferencePreprocessing
from tests.tinymodels import (
    ADAPTER_KINDS,
    SD2,
    TinySettings,
    TinyXLSettings,
    build_tiny_model,
    build_tiny_xl,
    open_pipeline,
)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Return smooth colours with noise, so that resampling and rounding are put to work."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (5, 4, 3), dtype=np.uint8)).resize((width, height))
    noise = random.integers(-40, 40, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(coarse, dtype=np.int64) + noise, 0, 255).astype(np.uint8))


def test_prompts_encode_as_in_the_pipeline(every_adapter: Path) -> None:
    model, pipe = load_model(every_adapter, adapter="base"), open_pipeline(every_adapter)
    texts = ["a portrait of a woman smiling", "", "A  RED hat\n", "ünïcode 人像 🙂"]
    theirs, negative = pipe.encode_prompt(texts, "cpu", 1, True)
    ours = model.prompts.encode(texts)
    assert torch.equal(torch.stack([prompt.embedding for prompt in ours]), theirs)
    assert [prompt.dropped for prompt in ours] == [""] * 4
    torch.testing.assert_close(ours[1].embedding, negative[1], rtol=0, atol=1e-6)
    assert model.prompts.encode([]) == []


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_xl(tmp_path_factory.mktemp("tiny"), TinyXLSettings(dtype=torch.float16))


def test_sdxls_prompts_encode_as_in_the_pipeline(sdxl: Path) -> None:
    model, pipe = load_model(sdxl), open_pipeline(sdxl)
    texts = ["a portrait of a woman smiling", "", "A  RED hat\n", "red " * 90]
    theirs, _, pooled, _ = pipe.encode_prompt(texts, device="cpu", do_classifier_free_guidance=False)
    ours = model.prompts.encode(texts)
    assert torch.equal(torch.stack([prompt.embedding for prompt in ours]), theirs)
    assert torch.equal(torch.stack([prompt.pooled for prompt in ours if prompt.pooled is not None]), pooled)
    assert [bool(prompt.dropped) for prompt in ours] == [False, False, False, True]
    assert model.prompts.encode([]) == []
    _, zeros, _, zeros_pooled = pipe.encode_prompt(texts[0], device="cpu")
    assert torch.equal(ours[0].zeroed().embedding, zeros[0])
    mine = ours[0].zeroed().pooled
    assert mine is not None and torch.equal(mine, zeros_pooled[0])


def test_sd2s_prompts_encode_as_in_the_pipeline(tmp_path: Path) -> None:
    root = build_tiny_model(tmp_path, SD2)
    model, pipe = load_model(root), open_pipeline(root)
    texts = ["a portrait of a woman smiling", ""]
    theirs, _ = pipe.encode_prompt(texts, "cpu", 1, False)
    assert torch.equal(torch.stack([prompt.embedding for prompt in model.prompts.encode(texts)]), theirs)
    assert model.facts.family == "sd2"


@pytest.mark.parametrize("upcast", [True, False])
def test_sdxls_vae_is_kept_from_float16_where_it_says_so(tmp_path: Path, upcast: bool) -> None:
    root = build_tiny_xl(tmp_path, TinyXLSettings(force_upcast=upcast, adapters=()))
    model = load_model(root, dtype=torch.float16)
    assert model.decoder.vae.dtype == (torch.float32 if upcast else torch.float16)
    assert load_model(root, dtype=torch.bfloat16).decoder.vae.dtype == torch.bfloat16
    assert model.text_kv.weight.dtype == torch.float16
    plain = load_model(build_tiny_model(tmp_path / "sd1", TinySettings(adapters=())), dtype=torch.float16)
    assert plain.decoder.vae.dtype == torch.float16
    assert model.decoder.decode(torch.randn(1, 4, 8, 8)).shape == (1, 64, 64, 3)


@pytest.mark.parametrize("count", [74, 75, 76, 120])
def test_dropped_text_is_what_diffusers_warns_of(
    every_adapter: Path, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    model, pipe = load_model(every_adapter, adapter="base"), open_pipeline(every_adapter)
    text = " ".join(["red"] * (count - 1) + ["hat"])
    logger = logging.getLogger("diffusers")
    logger.propagate = True
    try:
        with caplog.at_level(logging.WARNING, logger="diffusers"):
            pipe.encode_prompt(text, "cpu", 1, False)
    finally:
        logger.propagate = False
    warnings = [record.getMessage() for record in caplog.records if "truncated" in record.getMessage()]
    (prompt,) = model.prompts.encode([text])
    if count <= 75:
        assert prompt.dropped == "" and not warnings
    else:
        assert prompt.dropped and warnings[0].endswith(str([prompt.dropped]))


@pytest.mark.parametrize(
    "size", [(32, 32), (64, 48), (31, 77), (100, 33), (33, 100), (20, 9), (97, 500), (640, 100), (7, 7)]
)
def test_preprocessing_equals_the_clip_image_processor(every_adapter: Path, size: tuple[int, int]) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil.from_pretrained(str(every_adapter / "feature_extractor"))
    image = picture(*size)
    theirs = processor(image, do_rescale=False, do_normalize=False, return_tensors="np").pixel_values[0]
    ours = ReferencePreprocessing(size=32, shortest_edge=32).apply(image)
    assert ours.dtype == np.uint8 and ours.shape == (32, 32, 3)
    assert np.array_equal(ours, theirs.transpose(1, 2, 0))


def test_preprocessing_pads_a_crop_larger_than_the_picture() -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(size={"shortest_edge": 21}, crop_size={"height": 32, "width": 32})
    theirs = processor(
        picture(40, 30), do_rescale=False, do_normalize=False, return_tensors="np"
    ).pixel_values[0]
    ours = ReferencePreprocessing(size=32, shortest_edge=21).apply(picture(40, 30))
    assert np.array_equal(ours, theirs.transpose(1, 2, 0))


def test_preprocessing_of_a_strip_is_bounded() -> None:
    assert ReferencePreprocessing(size=224, shortest_edge=224).apply(picture(1, 20_000)).shape == (
        224,
        224,
        3,
    )


def test_preprocessing_version_is_read_back_and_checked() -> None:
    made = ReferencePreprocessing(size=224, shortest_edge=256, resample="lanczos")
    assert ReferencePreprocessing.parse(made.version) == made
    for text in ("", "clip-pil-0 edge=1 crop=1 resample=bicubic", made.version.replace("lanczos", "magic")):
        with pytest.raises(ValueError, match="not a preprocessing"):
            ReferencePreprocessing.parse(text)


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_references_encode_as_in_the_pipeline(every_adapter: Path, kind: str) -> None:
    model, pipe = load_model(every_adapter, adapter=kind), open_pipeline(every_adapter, adapter=kind)
    assert model.image_encoder is not None and model.adapter is not None
    images = [picture(50, 70, 1), picture(90, 64, 2)]
    pixels = torch.from_numpy(np.stack([model.image_encoder.preprocessing.apply(image) for image in images]))
    ours = model.image_encoder.encode(pixels, model.adapter)
    with torch.inference_mode():
        (embeds,) = pipe.prepare_ip_adapter_image_embeds([images], None, "cpu", 1, True)
        (theirs,) = pipe.unet.encoder_hid_proj([embeds])
    negative, positive = theirs[0], theirs[1]
    torch.testing.assert_close(ours, positive, rtol=0, atol=5e-6)
    for row in negative:
        torch.testing.assert_close(model.unconditional_tokens[kind], row, rtol=0, atol=5e-6)
    assert ours.shape == (2, model.facts.reference_tokens, model.facts.token_width)
    with pytest.raises(ValueError, match="pixels must be"):
        model.image_encoder.encode(pixels.float(), model.adapter)


def test_latents_decode_as_in_the_pipeline(every_adapter: Path) -> None:
    model, pipe = load_model(every_adapter, adapter="base"), open_pipeline(every_adapter)
    latents = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1)) * 3
    with torch.inference_mode():
        decoded = pipe.vae.decode(latents / pipe.vae.config.scaling_factor, return_dict=False)[0]
    theirs = np.stack([np.asarray(i) for i in pipe.image_processor.postprocess(decoded, output_type="pil")])
    ours = model.decoder.decode(latents).numpy()
    assert ours.shape == (3, 64, 64, 3) and np.array_equal(ours, theirs)


def test_v_prediction_and_bfloat16_load(tmp_path: Path) -> None:
    root = build_tiny_model(tmp_path, TinySettings(prediction_type="v_prediction"))
    model = load_model(root, dtype=torch.bfloat16)
    assert model.facts.prediction_type == "v_prediction"
    assert {p.dtype for p in model.unet.parameters()} == {torch.bfloat16}
    assert [tokens.dtype for tokens in model.unconditional_tokens.values()] == [torch.float32]
