"""Adapters as published, and several of them in one model, with image encoders of their own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine.backends.torch_backend import TorchBackend, TorchSettings
from engine.models import errors
from engine.models.adapter import _build_projection, adapter_kind
from engine.models.model import Model, load_model
from engine.models.unet import ConditionedUNet
from tests.tinymodels import TinyXLSettings, build_tiny_xl, open_pipeline, write_adapter
from tests.tinymodels.parts import build_vision, cross_attention_widths, write_json

POOLED_G, HIDDEN_G = 20, 28
"""Another image encoder's widths, as ViT-bigG's beside ViT-H's."""

SD15: dict[str, Any] = {"cross_attention_dim": 768, "attention_head_dim": 8}
SD21: dict[str, Any] = {
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
}
SDXL: dict[str, Any] = {
    "cross_attention_dim": 2048,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
ONE = [320] * 2 + [640] * 2 + [1280] * 2 + [1280] * 3 + [640] * 3 + [320] * 3 + [1280]
PUBLISHED = {
    "sd15": (SD15, ONE, {}),
    "sd21": (SD21, ONE, {}),
    "sdxl": (
        SDXL,
        [640] * 4 + [1280] * 20 + [1280] * 30 + [640] * 6 + [1280] * 10,
        {"text_embeds": 1280, "time_ids": 6},
    ),
}
"""Settings of the published UNets, the widths of the layers that h94's files number 1, 3, 5, ..., further inputs."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_layers_of_published_unets_are_numbered_as_in_h94s_files(name: str) -> None:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    config, widths, vectors = PUBLISHED[name]
    with torch.device("meta"):
        unet = ConditionedUNet(UNet2DConditionModel.from_config(config))
    assert [layer.width for layer in unet.columns] == widths
    assert {layer.width // layer.heads for layer in unet.columns} == (
        {40, 80, 160} if name == "sd15" else {64}
    )
    assert unet.added.widths() == vectors


def plus_shapes(width: int, tokens: int) -> dict[str, list[int]]:
    """Shapes of a plus adapter's projection for ViT-H's hidden states."""
    shapes = {
        "latents": [1, 16, width],
        "proj_in.weight": [width, 1280],
        "proj_in.bias": [width],
        "proj_out.weight": [tokens, width],
        "proj_out.bias": [tokens],
        "norm_out.weight": [tokens],
        "norm_out.bias": [tokens],
    }
    for layer in range(4):
        for norm in ("0.norm1", "0.norm2", "1.0"):
            shapes |= {f"layers.{layer}.{norm}.{part}": [width] for part in ("weight", "bias")}
        shapes |= {
            f"layers.{layer}.0.to_q.weight": [width, width],
            f"layers.{layer}.0.to_kv.weight": [2 * width, width],
            f"layers.{layer}.0.to_out.weight": [width, width],
            f"layers.{layer}.1.1.weight": [4 * width, width],
            f"layers.{layer}.1.3.weight": [width, 4 * width],
        }
    return shapes


def base_shapes(features: int, width: int) -> dict[str, list[int]]:
    return {
        "proj.weight": [4 * width, features],
        "proj.bias": [4 * width],
        "norm.weight": [width],
        "norm.bias": [width],
    }


FULL_FACE = {
    "proj.0.weight": [1280, 1280],
    "proj.0.bias": [1280],
    "proj.2.weight": [768, 1280],
    "proj.2.bias": [768],
    "proj.3.weight": [768],
    "proj.3.bias": [768],
}
FILES: dict[str, tuple[str, dict[str, list[int]], int, tuple[int, ...], int]] = {
    "ip-adapter_sd15": ("base", base_shapes(1024, 768), 768, (1024,), 4),
    "ip-adapter_sd15_light": ("base", base_shapes(1024, 768), 768, (1024,), 4),
    "ip-adapter-plus_sd15": ("plus", plus_shapes(768, 768), 768, (257, 1280), 16),
    "ip-adapter-plus-face_sd15": ("plus", plus_shapes(768, 768), 768, (257, 1280), 16),
    "ip-adapter-full-face_sd15": ("full", FULL_FACE, 768, (257, 1280), 257),
    "ip-adapter_sdxl": ("base", base_shapes(1280, 2048), 2048, (1280,), 4),
    "ip-adapter_sdxl_vit-h": ("base", base_shapes(1024, 2048), 2048, (1024,), 4),
    "ip-adapter-plus_sdxl_vit-h": ("plus", plus_shapes(1280, 2048), 2048, (257, 1280), 16),
    "ip-adapter-plus-face_sdxl_vit-h": ("plus", plus_shapes(1280, 2048), 2048, (257, 1280), 16),
}
"""Kind, projection's shapes, width of the tokens, shape of one reference's features, number of tokens."""


@pytest.mark.parametrize("name", FILES)
def test_projections_of_h94s_files(name: str) -> None:
    kind, shapes, width, features, tokens = FILES[name]
    path = Path(f"{name}.safetensors")
    with torch.device("meta"):
        projection = {key: torch.empty(shape) for key, shape in shapes.items()}
        assert adapter_kind(path, projection) == kind
        module = _build_projection(path, projection, width)
        assert module(torch.empty(1, *features)).shape == (1, tokens, width)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny SDXL model with three adapters, one of which reads an image encoder of its own."""
    root = build_tiny_xl(tmp_path_factory.mktemp("tiny"), TinyXLSettings(adapters=("base", "plus")))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        build_vision(pooled=POOLED_G, hidden=HIDDEN_G).save_pretrained(root / "image_encoder_g")
    write_adapter(
        root / "ip_adapter" / "big.safetensors",
        "base",
        layers=cross_attention_widths(open_pipeline(root).unet),
        token_width=64,
        pooled_width=POOLED_G,
        hidden_width=HIDDEN_G,
        seed=9,
    )
    write_json(root / "ip_adapter" / "big.json", {"image_encoder": "image_encoder_g"})
    return root


@pytest.fixture(scope="module")
def model(root: Path) -> Model:
    return load_model(root, adapter="plus")


@pytest.fixture
def copied(root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(root, tmp_path / "model"))


def test_every_adapter_is_loaded_with_its_encoder(model: Model) -> None:
    assert [adapter.name for adapter in model.facts.adapters] == ["plus", "base", "big"]
    assert len({adapter.weights_hash for adapter in model.facts.adapters}) == 3
    found = [(one.name, one.kind, one.tokens) for one in model.adapters.values()]
    assert found == [("plus", "plus", 6), ("base", "base", 4), ("big", "base", 4)]
    assert model.adapters["plus"].encoder is model.adapters["base"].encoder
    assert model.adapters["big"].encoder is not model.adapters["base"].encoder
    assert model.facts.reference_tokens == 6 and model.adapter is model.adapters["plus"].adapter
    assert model.unconditional_tokens["plus"] is model.adapters["plus"].unconditional_tokens


def test_each_adapters_tokens_are_the_pipelines(root: Path, model: Model) -> None:
    from transformers.models.clip.modeling_clip import CLIPVisionModelWithProjection

    backend = TorchBackend(model, TorchSettings(buckets=(1,), capacity=1, packed=False))
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (50, 70, 3), dtype=np.uint8))
    encoder = model.image_encoder
    assert encoder is not None
    pixels = torch.from_numpy(encoder.preprocessing.apply(image)[None].copy())
    for name in ("plus", "base", "big"):
        pipe = open_pipeline(root, adapter=name)
        if name == "big":
            pipe.image_encoder = CLIPVisionModelWithProjection.from_pretrained(root / "image_encoder_g")
        with torch.inference_mode():
            (embeds,) = pipe.prepare_ip_adapter_image_embeds([image], None, "cpu", 1, True)
            (theirs,) = pipe.unet.encoder_hid_proj([embeds])
        torch.testing.assert_close(backend.encode_images(pixels, name)[0], theirs[1][0], rtol=0, atol=5e-6)
        unconditional = model.adapters[name].unconditional_tokens
        torch.testing.assert_close(unconditional, theirs[0][0], rtol=0, atol=5e-6)
    assert torch.equal(backend.encode_images(pixels), backend.encode_images(pixels, "plus"))
    with pytest.raises(ValueError, match="no adapter 'face'"):
        backend.encode_images(pixels, "face")


def test_an_encoder_without_preprocessing_has_clips(copied: Path) -> None:
    with_file = load_model(copied, adapter="base")
    shutil.rmtree(copied / "feature_extractor")
    with pytest.raises(errors.MissingFileError, match="preprocessor_config"):
        load_model(copied, adapter="base")
    index = copied / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"feature_extractor": [None, None]}))
    without = load_model(copied, adapter="base")
    assert without.facts.preprocessing == with_file.facts.preprocessing
    assert without.image_encoder is not None and with_file.image_encoder is not None
    assert torch.equal(without.image_encoder.mean, with_file.image_encoder.mean)


def test_encoders_must_prepare_references_alike(copied: Path) -> None:
    write_json(
        copied / "image_encoder_g" / "preprocessor_config.json",
        {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}},
    )
    with pytest.raises(errors.UnsupportedModelError, match="differently") as caught:
        load_model(copied, adapter="base")
    assert caught.value.path == copied / "image_encoder_g"


def test_an_adapter_of_another_encoder_is_refused(copied: Path) -> None:
    (copied / "ip_adapter" / "big.json").unlink()
    with pytest.raises(errors.TensorShapeError, match="another image encoder") as caught:
        load_model(copied, adapter="base")
    assert caught.value.path == copied / "ip_adapter" / "big.safetensors"
    assert caught.value.expected == "features of width 16" and caught.value.found == str(POOLED_G)


@pytest.mark.parametrize(
    "settings", ["{", "[]", "{}", '{"image_encoder": 1}', '{"image_encoder": "../up"}', '{"encoder": "x"}']
)
def test_an_adapters_settings_are_checked(copied: Path, settings: str) -> None:
    path = copied / "ip_adapter" / "big.json"
    path.write_text(settings)
    with pytest.raises(errors.CorruptFileError) as caught:
        load_model(copied, adapter="base")
    assert caught.value.path == path


def test_a_named_encoder_must_be_there(copied: Path) -> None:
    write_json(copied / "ip_adapter" / "big.json", {"image_encoder": "image_encoder_x"})
    with pytest.raises(errors.MissingFileError) as caught:
        load_model(copied, adapter="base")
    assert caught.value.path == copied / "image_encoder_x" / "config.json"


def test_the_weights_hash_covers_every_adapter_and_which_is_the_default(copied: Path, model: Model) -> None:
    hashes = {model.facts.weights_hash}
    assert load_model(copied, adapter="plus").facts.weights_hash in hashes
    hashes.add(load_model(copied, adapter="base").facts.weights_hash)
    (copied / "ip_adapter" / "big.safetensors").unlink()
    hashes.add(load_model(copied, adapter="base").facts.weights_hash)
    (copied / "ip_adapter" / "plus.safetensors").unlink()
    hashes.add(load_model(copied).facts.weights_hash)
    assert len(hashes) == 4
