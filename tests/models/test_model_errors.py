"""Bad model directories end in typed errors that name the file, the tensor, expected and found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.loop.announcement import model_info
from engine.models import errors
from engine.models.model import load_model
from tests.models.spoiling import ADAPTER, UNET, Tensors, edit, edit_json


def test_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(errors.NotAModelError) as caught:
        load_model(tmp_path)
    assert caught.value.path == tmp_path
    with pytest.raises(errors.NotAModelError):
        load_model(tmp_path / "nowhere")
    checkpoint = tmp_path / "v1-5-pruned.safetensors"
    checkpoint.write_bytes(b"")
    with pytest.raises(errors.NotAModelError):
        load_model(checkpoint)


@pytest.mark.parametrize(
    "file",
    [
        "unet/config.json",
        UNET,
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        "scheduler/scheduler_config.json",
        "image_encoder/config.json",
        "image_encoder/model.safetensors",
        "feature_extractor/preprocessor_config.json",
    ],
)
def test_missing_file(root: Path, file: str) -> None:
    check_missing_file(root, file)


@pytest.mark.parametrize(
    "file",
    [UNET, "text_encoder_2/config.json", "text_encoder_2/model.safetensors", "tokenizer_2/vocab.json"],
)
def test_missing_file_of_sdxl(root_of: Callable[[str], Path], file: str) -> None:
    check_missing_file(root_of("sdxl"), file)


def check_missing_file(root: Path, file: str) -> None:
    for folder in ("tokenizer", "tokenizer_2"):
        (root / folder / "tokenizer.json").unlink(missing_ok=True)
    (root / file).unlink()
    with pytest.raises(errors.MissingFileError) as caught:
        load_model(root)
    assert caught.value.path == root / file


@pytest.mark.parametrize(
    ("family", "component"),
    [
        *(("sd1", component) for component in ("unet", "vae", "text_encoder", "image_encoder")),
        *(("sdxl", component) for component in ("unet", "text_encoder_2")),
    ],
)
def test_pickle_is_never_read(root_of: Callable[[str], Path], family: str, component: str) -> None:
    root = root_of(family)
    (weights,) = (root / component).glob("*.safetensors")
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(errors.PickleRefusedError) as caught:
        load_model(root)
    assert caught.value.path.suffix == ".bin"


@pytest.mark.parametrize("file", [UNET, ADAPTER, "text_encoder/model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"\xff" * 64])
def test_corrupt_weights(root: Path, file: str, content: bytes) -> None:
    (root / file).write_bytes(content)
    with pytest.raises(errors.CorruptFileError) as caught:
        load_model(root)
    assert caught.value.path == root / file


@pytest.mark.parametrize("file", ["model_index.json", "unet/config.json", "vae/config.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "\x00"])
def test_corrupt_json(root: Path, file: str, content: str) -> None:
    (root / file).write_text(content)
    with pytest.raises(errors.CorruptFileError) as caught:
        load_model(root)
    assert caught.value.path == root / file


@pytest.mark.parametrize(
    ("stated", "named"),
    [
        ({"default_num_inference_steps": 0}, "default_num_inference_steps"),
        ({"default_num_inference_steps": 20.0}, "default_num_inference_steps"),
        ({"default_num_inference_steps": True}, "default_num_inference_steps"),
        ({"default_guidance_scale": 0.5}, "default_guidance_scale"),
        ({"default_guidance_scale": "3"}, "default_guidance_scale"),
        ({"default_guidance_scale": float("inf")}, "default_guidance_scale"),
        ({"guidance": 3}, "guidance"),
        ({"default_adapter": "plus"}, "default_adapter"),
        ({"default_adapter": 1}, "default_adapter"),
    ],
)
def test_wrong_default(root: Path, stated: dict[str, object], named: str) -> None:
    (root / "limner.json").write_text(json.dumps(stated))
    with pytest.raises(errors.WrongDefaultError, match=named) as caught:
        load_model(root)
    assert caught.value.path == root / "limner.json"


def test_a_model_states_its_own_defaults(root: Path) -> None:
    plain = model_info(load_model(root).facts)
    assert (plain.default_steps, plain.default_guidance_scale) == (20, 5.0)
    (root / "limner.json").write_text('{"default_guidance_scale": 3, "default_num_inference_steps": 12}')
    info = model_info(load_model(root).facts)
    assert (info.default_steps, info.default_guidance_scale) == (12, 3.0)


CASES: list[tuple[str, str, str]] = [
    ("sd1", UNET, "conv_in.weight"),
    ("sd1", UNET, "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"),
    ("sd1", "vae/diffusion_pytorch_model.safetensors", "decoder.conv_in.weight"),
    ("sd1", "image_encoder/model.safetensors", "visual_projection.weight"),
    ("sd1", ADAPTER, "ip_adapter.1.to_v_ip.weight"),
    ("sdxl", UNET, "add_embedding.linear_1.weight"),
    ("sdxl", UNET, "mid_block.attentions.0.transformer_blocks.2.attn2.to_v.weight"),
    ("sdxl", "text_encoder_2/model.safetensors", "text_projection.weight"),
    ("sdxl", ADAPTER, "ip_adapter.21.to_k_ip.weight"),
]


@pytest.mark.parametrize(("family", "file", "tensor"), CASES)
def test_missing_tensor(root_of: Callable[[str], Path], family: str, file: str, tensor: str) -> None:
    root = root_of(family)
    edit(root / file, lambda tensors: tensors.pop(tensor))
    with pytest.raises(errors.MissingTensorError) as caught:
        load_model(root)
    assert (caught.value.path, caught.value.tensor) == (root / file, tensor)
    assert caught.value.expected is not None and caught.value.expected in str(caught.value)


@pytest.mark.parametrize(("family", "file", "tensor"), CASES)
def test_wrong_shape(root_of: Callable[[str], Path], family: str, file: str, tensor: str) -> None:
    root = root_of(family)
    edit(root / file, lambda tensors: tensors.update({tensor: torch.zeros(3, 5)}))
    with pytest.raises(errors.TensorShapeError) as caught:
        load_model(root)
    assert (caught.value.path, caught.value.tensor) == (root / file, tensor)
    assert caught.value.found == "[3, 5]"


@pytest.mark.parametrize(
    ("family", "file"),
    [
        ("sd1", UNET),
        ("sd1", ADAPTER),
        ("sd1", "vae/diffusion_pytorch_model.safetensors"),
        ("sdxl", UNET),
        ("sdxl", "text_encoder_2/model.safetensors"),
    ],
)
def test_unexpected_tensor(root_of: Callable[[str], Path], family: str, file: str) -> None:
    root = root_of(family)
    edit(root / file, lambda tensors: tensors.update({"extra.weight": torch.zeros(2)}))
    with pytest.raises(errors.UnexpectedTensorError) as caught:
        load_model(root)
    assert (caught.value.path, caught.value.tensor) == (root / file, "extra.weight")


@pytest.mark.parametrize(("family", "file", "tensor"), CASES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_finite(
    root_of: Callable[[str], Path], family: str, file: str, tensor: str, value: float
) -> None:
    root = root_of(family)
    edit(root / file, lambda tensors: tensors[tensor].view(-1)[:1].fill_(value))
    with pytest.raises(errors.NotFiniteError) as caught:
        load_model(root)
    assert (caught.value.path, caught.value.tensor) == (root / file, tensor)


@pytest.mark.parametrize(
    ("family", "file", "values", "error"),
    [
        ("sd1", "model_index.json", {"_class_name": "StableDiffusionXLPipeline"}, "addition_embed_type"),
        ("sdxl", "model_index.json", {"_class_name": "StableDiffusionPipeline"}, "addition_embed_type"),
        ("sdxl", "text_encoder_2/config.json", {"projection_dim": 8}, "text_projection.weight"),
        ("sdxl", "unet/config.json", {"addition_time_embed_dim": 4}, "pooled embeddings"),
        ("sdxl", "tokenizer_2/tokenizer_config.json", {"model_max_length": 50}, "different lengths"),
        ("sdxl", "vae/config.json", {"latents_mean": [0, 0, 0, 0]}, "latents_mean"),
        ("sdxl", "model_index.json", {"_class_name": "StableDiffusionXLImg2ImgPipeline"}, "pipeline class"),
    ],
)
def test_parts_that_do_not_go_together(
    root_of: Callable[[str], Path], family: str, file: str, values: dict[str, object], error: str
) -> None:
    root = root_of(family)
    edit_json(root / file, **values)
    with pytest.raises(errors.ModelError, match=error):
        load_model(root)


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("model_index.json", {"_class_name": "StableDiffusion3Pipeline"}),
        ("unet/config.json", {"addition_embed_type": "text_time"}),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow"}),
        ("scheduler/scheduler_config.json", {"prediction_type": "sample"}),
        ("feature_extractor/preprocessor_config.json", {"do_center_crop": False}),
        ("feature_extractor/preprocessor_config.json", {"crop_size": {"height": 16, "width": 16}}),
    ],
)
def test_unsupported(root: Path, file: str, values: dict[str, object]) -> None:
    edit_json(root / file, **values)
    with pytest.raises(errors.UnsupportedModelError) as caught:
        load_model(root)
    assert caught.value.path == root / file


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("unet/config.json", {"block_out_channels": "many"}),
        ("unet/config.json", {"cross_attention_dim": None}),
        ("vae/config.json", {"block_out_channels": []}),
        ("text_encoder/config.json", {"hidden_size": -1}),
        ("tokenizer/tokenizer_config.json", {"model_max_length": 1000}),
    ],
)
def test_nonsense_in_a_configuration_is_a_model_error(
    root: Path, file: str, values: dict[str, object]
) -> None:
    edit_json(root / file, **values)
    with pytest.raises(errors.ModelError):
        load_model(root)


def test_old_key_names_still_load(root: Path) -> None:
    # SD 1.5's own VAE file has the attention keys of 2022; its text encoder file has position_ids.
    def rename(tensors: Tensors) -> None:
        old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
        for name in [n for n in tensors if "attentions" in n]:
            for new, key in old.items():
                if f".{new}." in name:
                    tensors[name.replace(f".{new}.", f".{key}.")] = tensors.pop(name)

    edit(root / "vae/diffusion_pytorch_model.safetensors", rename)
    edit(
        root / "text_encoder/model.safetensors",
        lambda tensors: tensors.update({"text_model.embeddings.position_ids": torch.arange(77)[None]}),
    )
    load_model(root)


def test_weights_hash_follows_what_makes_tokens(root: Path) -> None:
    before = load_model(root).facts.weights_hash
    edit(root / UNET, lambda tensors: tensors["conv_in.bias"].add_(1))
    assert load_model(root).facts.weights_hash == before
    edit(root / ADAPTER, lambda tensors: tensors["image_proj.norm.bias"].add_(1))
    assert load_model(root).facts.weights_hash != before


def test_sharded_weights(root: Path) -> None:
    tensors = load_file(root / UNET)
    names = sorted(tensors)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, keys in halves.items():
        save_file({key: tensors[key] for key in keys}, root / "unet" / file)
    (root / UNET).unlink()
    mapping = {key: file for file, keys in halves.items() for key in keys}
    index = root / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": mapping}))
    load_model(root)
    (root / "unet" / "b.safetensors").unlink()
    with pytest.raises(errors.MissingFileError):
        load_model(root)
