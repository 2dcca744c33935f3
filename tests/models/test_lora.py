"""LoRAs: every published key format, fused as a dense change of the weights, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.backends.base import RowConditioning
from engine.backends.torch_backend import TorchBackend, TorchSettings
from engine.models import errors
from engine.models.lora_choice import LoraChoice
from engine.models.model import Model, load_model
from engine.models.sgm_names import RESNET, sgm_names
from tests.tinymodels import TinySettings, TinyXLSettings, build_tiny_model, build_tiny_xl
from tests.tinymodels.loras import (
    ALPHA,
    ATTN,
    FORMATS,
    LAYERS,
    RANK,
    densely,
    kohya,
    peft,
    unet_alone,
    write_lora,
)

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sound")
    return {
        "sd1": build_tiny_model(folder / "sd1", TinySettings(adapters=())),
        "sdxl": build_tiny_xl(folder / "sdxl", TinyXLSettings(adapters=())),
    }


def weights(model: Model) -> Tensors:
    """Return all weights that a LoRA may change, by name."""
    towers = getattr(model.prompts, "models", None) or (model.prompts.model,)
    named: Tensors = {f"unet.{name}": value for name, value in model.unet.named_parameters()}
    for number, tower in enumerate(towers):
        named.update({f"text.{number}.{name}": value for name, value in tower.named_parameters()})
    return named | {"text_kv": model.text_kv.weight}


def predict(model: Model) -> torch.Tensor:
    """Return the prediction of two rows, text encoders included."""
    backend = TorchBackend(model, TorchSettings(buckets=(2,), capacity=2, packed=False))
    slots = [backend.place(RowConditioning(prompt=prompt)) for prompt in backend.encode_prompts(["a", "hat"])]
    sample = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    return backend.predict_noise(slots, sample, torch.tensor([401.0, 700.0]), 2)


@pytest.fixture(scope="module")
def oracle_of(
    roots: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, float], Model]:
    """Return the function that loads a family's model with every layer changed by a factor."""
    folder = tmp_path_factory.mktemp("dense")
    return cache(
        lambda family, factor: load_model(
            densely(roots[family], folder / f"{family}{factor}", family, factor)
        )
    )


def check_equal(fused: Model, oracle: Model) -> None:
    mine, theirs = weights(fused), weights(oracle)
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("family", "format"), [(f, n) for f in LAYERS for n in FORMATS if f == "sdxl" or n != "kohya-sgm"]
)
def test_a_fused_lora_is_the_dense_change(
    roots: dict[str, Path],
    oracle_of: Callable[[str, float], Model],
    tmp_path: Path,
    family: str,
    format: str,
) -> None:
    with_alpha = format.startswith("kohya")
    lora = write_lora(tmp_path / "a.safetensors", roots[family], family, FORMATS[format], alpha=with_alpha)
    scale = -0.5
    oracle = oracle_of(family, scale * (ALPHA / RANK if with_alpha else 1.0))
    check_equal(load_model(roots[family], loras=[LoraChoice(path=lora, scale=scale)]), oracle)


@pytest.mark.parametrize("family", LAYERS)
def test_a_lora_changes_the_picture(
    roots: dict[str, Path], oracle_of: Callable[[str, float], Model], tmp_path: Path, family: str
) -> None:
    lora = write_lora(tmp_path / "a.safetensors", roots[family], family, kohya)
    fused = predict(load_model(roots[family], loras=[LoraChoice(path=lora, scale=-0.5)]))
    oracle = predict(oracle_of(family, -0.5 * ALPHA / RANK))
    torch.testing.assert_close(fused, oracle, rtol=0, atol=1e-5)
    assert (fused - predict(load_model(roots[family]))).abs().max() > 0.01


def test_pefts_alpha_is_read_from_the_header(roots: dict[str, Path], tmp_path: Path) -> None:
    root = roots["sd1"]
    settings = {
        f"{part}.{name}": value
        for part in ("unet", "text_encoder")
        for name, value in (
            ("r", RANK),
            ("lora_alpha", ALPHA),
            ("alpha_pattern", {}),
            ("use_dora", False),
        )
    }
    header = {"lora_adapter_metadata": json.dumps(settings)}
    lora = write_lora(tmp_path / "a.safetensors", root, "sd1", peft, alpha=False, **header)
    oracle = load_model(densely(root, tmp_path / "dense", "sd1", ALPHA / RANK))
    check_equal(load_model(root, loras=[LoraChoice(path=lora)]), oracle)
    for change in ({"unet.use_dora": True}, {"unet.alpha_pattern": {"to_q": 4}}):
        header = {"lora_adapter_metadata": json.dumps(settings | change)}
        write_lora(lora, root, "sd1", peft, alpha=False, **header)
        with pytest.raises(errors.UnsupportedModelError, match=next(iter(change))):
            load_model(root, loras=[LoraChoice(path=lora)])
    write_lora(lora, root, "sd1", peft, alpha=False, lora_adapter_metadata="[1")
    with pytest.raises(errors.CorruptFileError):
        load_model(root, loras=[LoraChoice(path=lora)])


def test_loras_of_the_directory_and_of_the_engine_add_up(roots: dict[str, Path], tmp_path: Path) -> None:
    root = Path(shutil.copytree(roots["sd1"], tmp_path / "model"))
    before = load_model(root).facts.weights_hash
    inside = write_lora(root / "lora" / "style.safetensors", root, "sd1", unet_alone, alpha=False)
    outside = LoraChoice(path=shutil.copy(inside, tmp_path / "other.safetensors"), scale=0.5)
    oracle = load_model(densely(roots["sd1"], tmp_path / "dense", "sd1", 1.5))
    both = load_model(root, loras=[outside])
    check_equal(both, oracle)
    hashes = {
        before,
        load_model(root).facts.weights_hash,
        both.facts.weights_hash,
        load_model(root, loras=[LoraChoice(path=outside.path, scale=0.6)]).facts.weights_hash,
    }
    assert len(hashes) == 4
    assert load_model(root, loras=[outside]).facts.weights_hash == both.facts.weights_hash


def test_half_precision_files_fuse_in_single_precision(roots: dict[str, Path], tmp_path: Path) -> None:
    root = build_tiny_model(tmp_path / "half", TinySettings(adapters=(), dtype=torch.float16))
    lora = write_lora(tmp_path / "a.safetensors", root, "sd1", kohya)
    save_file({key: tensor.half() for key, tensor in load_file(lora).items()}, lora)
    choice = LoraChoice(path=lora)
    whole, cut = load_model(root, loras=[choice]), load_model(root, loras=[choice], dtype=torch.bfloat16)
    assert whole.text_kv.weight.dtype == torch.float32 and cut.text_kv.weight.dtype == torch.bfloat16
    torch.testing.assert_close(cut.text_kv.weight.float(), whole.text_kv.weight, rtol=0.01, atol=0.01)


Q = f"lora_unet_{ATTN.format(0).replace('.', '_')}_attn1_to_q"


@pytest.mark.parametrize(
    ("change", "error", "tensor"),
    [
        (
            lambda t: t.update({"lora_unet_nowhere.lora_down.weight": torch.zeros(3, 4)}),
            errors.MissingTensorError,
            "lora_unet_nowhere.lora_down.weight",
        ),
        (
            lambda t: t.update(
                {
                    "lora_unet_x.lora_down.weight": torch.zeros(3, 4),
                    "lora_unet_x.lora_up.weight": torch.zeros(4, 3),
                }
            ),
            errors.UnexpectedTensorError,
            "lora_unet_x.lora_down.weight",
        ),
        (
            lambda t: t.update({"lora_unet_x.alpha": torch.tensor(1.0)}),
            errors.MissingTensorError,
            "lora_unet_x.alpha",
        ),
        (
            lambda t: t.update(
                {
                    "lora_te2_x.lora_down.weight": torch.zeros(3, 4),
                    "lora_te2_x.lora_up.weight": torch.zeros(4, 3),
                }
            ),
            errors.UnexpectedTensorError,
            "lora_te2_x.lora_down.weight",
        ),
        (lambda t: t.update({"something": torch.zeros(1)}), errors.UnexpectedTensorError, "something"),
        (
            lambda t: t.update({"unet.conv_in.weight": torch.zeros(1)}),
            errors.UnexpectedTensorError,
            "unet.conv_in.weight",
        ),
        (lambda t: t.pop(f"{Q}.lora_up.weight"), errors.MissingTensorError, f"{Q}.lora_down.weight"),
        (lambda t: t.pop(f"{Q}.lora_down.weight"), errors.MissingTensorError, f"{Q}.lora_up.weight"),
        (
            lambda t: t.update({f"{Q}.lora_down.weight": torch.zeros(RANK, 5)}),
            errors.TensorShapeError,
            f"{Q}.lora_down.weight",
        ),
        (
            lambda t: t.update({f"{Q}.lora_up.weight": torch.zeros(32, RANK + 1)}),
            errors.TensorShapeError,
            f"{Q}.lora_down.weight",
        ),
        (
            lambda t: t.update({f"{Q}.lora_down.weight": torch.tensor(1.0)}),
            errors.TensorShapeError,
            f"{Q}.lora_down.weight",
        ),
        (
            lambda t: t.update({f"{Q}.alpha": torch.zeros(2)}),
            errors.TensorShapeError,
            f"{Q}.alpha",
        ),
        (
            lambda t: t[f"{Q}.lora_down.weight"].view(-1)[:1].fill_(float("nan")),
            errors.NotFiniteError,
            f"{Q}.lora_down.weight",
        ),
        (
            lambda t: t.update({f"{Q}.dora_scale": torch.ones(32)}),
            errors.UnsupportedModelError,
            f"{Q}.dora_scale",
        ),
        (
            lambda t: t.update({f"{Q}.hada_w1_a": torch.ones(32)}),
            errors.UnsupportedModelError,
            f"{Q}.hada_w1_a",
        ),
    ],
)
def test_a_lora_that_does_not_fit(
    roots: dict[str, Path],
    tmp_path: Path,
    change: Callable[[Tensors], object],
    error: type[errors.ModelError],
    tensor: str,
) -> None:
    lora = write_lora(tmp_path / "a.safetensors", roots["sd1"], "sd1", kohya)
    tensors = load_file(lora)
    change(tensors)
    save_file(tensors, lora)
    with pytest.raises(error) as caught:
        load_model(roots["sd1"], loras=[LoraChoice(path=lora)])
    assert (caught.value.path, caught.value.tensor) == (lora, tensor)


@pytest.mark.parametrize(("owner", "other"), [("sd1", "sdxl"), ("sdxl", "sd1")])
def test_a_lora_for_another_base_says_so(
    roots: dict[str, Path], tmp_path: Path, owner: str, other: str
) -> None:
    lora = write_lora(tmp_path / "a.safetensors", roots[owner], owner, peft, alpha=False)
    with pytest.raises(errors.ModelError, match="another base model") as caught:
        load_model(roots[other], loras=[LoraChoice(path=lora)])
    assert caught.value.path == lora and caught.value.tensor is not None


def test_a_layer_under_two_names_is_an_error(roots: dict[str, Path], tmp_path: Path) -> None:
    lora = write_lora(tmp_path / "a.safetensors", roots["sdxl"], "sdxl", kohya)
    twice = write_lora(tmp_path / "b.safetensors", roots["sdxl"], "sdxl", FORMATS["kohya-sgm"])
    own = {key: tensor for key, tensor in load_file(twice).items() if key.startswith("lora_unet_")}
    save_file(load_file(lora) | own, lora)
    with pytest.raises(errors.UnexpectedTensorError, match="changes a layer twice"):
        load_model(roots["sdxl"], loras=[LoraChoice(path=lora)])
    write_lora(lora, roots["sdxl"], "sdxl", peft, alpha=False)
    other = {f"base_model.model.{key}": tensor for key, tensor in load_file(lora).items() if "unet." in key}
    save_file(load_file(lora) | other, lora)
    with pytest.raises(errors.UnexpectedTensorError, match=r"twice, also as"):
        load_model(roots["sdxl"], loras=[LoraChoice(path=lora)])


def test_sdxls_own_names_are_diffusers_map_of_them() -> None:
    """At the published size, for every block: diffusers' conversion of kohya's keys is the oracle."""
    from diffusers.loaders.lora_conversion_utils import _maybe_map_sgm_blocks_to_diffusers

    config = {
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "layers_per_block": 2,
    }
    blocks = ("input_blocks", "middle_block", "output_blocks")
    names = {
        sgm: ours
        for sgm, ours in sgm_names(config).items()
        if sgm.startswith(blocks) and sgm != "input_blocks_0_0"
    }
    keys = {f"lora_unet_{sgm}_tail": torch.zeros(1) for sgm in names}
    theirs = list(_maybe_map_sgm_blocks_to_diffusers(dict(keys), SimpleNamespace(layers_per_block=2)))
    for sgm, ours in names.items():
        # What is inside resnets and downsamplers diffusers renames elsewhere: here their place alone is compared.
        inner = next((old for old in RESNET if sgm.endswith(f"_{old}")), None)
        ours = ours.replace("downsamplers_0_conv", "downsamplers_0_op")
        expected = ours if inner is None else ours.removesuffix(RESNET[inner]) + inner
        for mine, other in (("down_", "input_"), ("mid_", "middle_"), ("up_", "output_")):
            expected = other + expected.removeprefix(mine) if expected.startswith(mine) else expected
        assert f"lora_unet_{expected}_tail" in theirs, sgm
    assert len(names) == len(theirs) == 17 * 6 + 11 + 4


def test_what_is_no_lora_file(roots: dict[str, Path], tmp_path: Path) -> None:
    root = Path(shutil.copytree(roots["sd1"], tmp_path / "model"))
    with pytest.raises(errors.MissingFileError):
        load_model(root, loras=[LoraChoice(path=tmp_path / "nowhere.safetensors")])
    (tmp_path / "a.pt").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(errors.PickleRefusedError):
        load_model(root, loras=[LoraChoice(path=tmp_path / "a.pt")])
    (tmp_path / "a.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(errors.CorruptFileError):
        load_model(root, loras=[LoraChoice(path=tmp_path / "a.safetensors")])
    (root / "lora").mkdir()
    (root / "lora" / "a.ckpt").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(errors.PickleRefusedError) as caught:
        load_model(root)
    assert caught.value.path == root / "lora" / "a.ckpt"


@pytest.mark.parametrize(
    ("text", "path", "scale"),
    [
        ("a.safetensors", "a.safetensors", 1.0),
        ("/x/a.safetensors:0.7", "/x/a.safetensors", 0.7),
        ("a.safetensors:-1", "a.safetensors", -1.0),
        ("/x:y/a.safetensors", "/x:y/a.safetensors", 1.0),
        ("/x:y/a.safetensors:2", "/x:y/a.safetensors", 2.0),
    ],
)
def test_choices_are_read_from_text(text: str, path: str, scale: float) -> None:
    assert LoraChoice.parse(text) == LoraChoice(path=Path(path), scale=scale)
    for bad in ("nan", "inf"):
        with pytest.raises(ValueError, match="finite"):
            LoraChoice.parse(f"a.safetensors:{bad}")
