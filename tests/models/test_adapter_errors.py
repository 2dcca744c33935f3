"""Adapters that do not fit end in typed errors that say why."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engine.models import errors
from engine.models.model import Model, load_model
from tests.models.spoiling import ADAPTER, Tensors, edit
from tests.tinymodels import TinySettings, build_tiny_model, write_adapter


def names(model: Model) -> list[str]:
    return [adapter.name for adapter in model.facts.adapters]


def test_pickled_adapter_is_refused(root: Path) -> None:
    shutil.copy(root / ADAPTER, root / "ip_adapter" / "face.bin")
    with pytest.raises(errors.PickleRefusedError):
        load_model(root, adapter="face")
    assert names(load_model(root)) == ["base"]
    (root / ADAPTER).unlink()
    with pytest.raises(errors.PickleRefusedError):
        load_model(root)


def test_projection_errors_name_the_tensor(root: Path) -> None:
    edit(root / ADAPTER, lambda tensors: tensors.pop("image_proj.norm.bias"))
    with pytest.raises(errors.MissingTensorError) as caught:
        load_model(root)
    assert caught.value.tensor == "image_proj.norm.bias"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda t: t.update({"image_proj.norm.bias": torch.zeros(3)}), errors.TensorShapeError),
        (lambda t: t.update({"image_proj.more": torch.zeros(3)}), errors.UnexpectedTensorError),
        (lambda t: t.update({"image_proj.proj.weight": torch.zeros(128, 9)}), errors.TensorShapeError),
        (lambda t: t.update({"ip_adapter.9.to_k_ip.weight": torch.zeros(3)}), errors.UnexpectedTensorError),
        (
            lambda t: t.update({"ip_adapter.0.to_k_lora.down.weight": torch.zeros(3)}),
            errors.UnexpectedTensorError,
        ),
        (lambda t: t.pop("image_proj.proj.weight"), errors.MissingTensorError),
    ],
)
def test_adapter_that_does_not_fit(
    root: Path, change: Callable[[Tensors], object], error: type[errors.ModelError]
) -> None:
    edit(root / ADAPTER, change)
    with pytest.raises(error) as caught:
        load_model(root)
    assert caught.value.path == root / ADAPTER and caught.value.tensor


def test_an_adapter_for_another_base_is_named_as_such(tmp_path: Path) -> None:
    sd1 = build_tiny_model(tmp_path / "sd1", TinySettings(adapters=(), cross_attention_dim=768))
    layers = [32] * 70
    path = sd1 / "ip_adapter" / "ip-adapter_sdxl_vit-h.safetensors"
    write_adapter(path, "base", layers=layers, token_width=2048, pooled_width=16, hidden_width=24)
    with pytest.raises(
        errors.TensorShapeError, match=r"another base model, SDXL; .* Stable Diffusion 1\.x"
    ) as caught:
        load_model(sd1)
    assert (caught.value.path, caught.value.tensor) == (path, "ip_adapter.1.to_k_ip.weight")
    assert caught.value.expected is not None and "768 for 4 layers" in caught.value.expected
    assert caught.value.found is not None and "2048 for 70 layers" in caught.value.found


@pytest.mark.parametrize(("family", "other"), [("sd1", "sdxl"), ("sdxl", "sd1")])
def test_adapters_do_not_swap_families(
    root_of: Callable[[str], Path], sound: Path, sound_xl: Path, family: str, other: str
) -> None:
    root = root_of(family)
    shutil.copy({"sd1": sound, "sdxl": sound_xl}[other] / ADAPTER, root / ADAPTER)
    with pytest.raises(errors.TensorShapeError, match="another base model") as caught:
        load_model(root)
    assert caught.value.path == root / ADAPTER


@pytest.mark.parametrize(
    "projection",
    [
        {"image_proj.perceiver_resampler.proj_in.weight": (8, 8), "image_proj.proj.0.weight": (8, 8)},
        {
            "image_proj.proj.0.weight": (8, 8),
            "image_proj.proj.2.weight": (8, 8),
            "image_proj.norm.weight": (8,),
        },
    ],
)
def test_faceid_is_refused_with_the_reason(root: Path, projection: dict[str, tuple[int, ...]]) -> None:
    def change(tensors: Tensors) -> None:
        for name in [name for name in tensors if name.startswith("image_proj.")]:
            del tensors[name]
        tensors.update({name: torch.zeros(shape) for name, shape in projection.items()})

    edit(root / ADAPTER, change)
    with pytest.raises(
        errors.UnsupportedModelError, match=r"FaceID.*LoRA changes every attention layer"
    ) as caught:
        load_model(root)
    assert caught.value.path == root / ADAPTER


def test_adapter_choice(root: Path) -> None:
    with pytest.raises(errors.AdapterChoiceError, match="base"):
        load_model(root, adapter="plus")
    shutil.copy(root / ADAPTER, root / "ip_adapter" / "second.safetensors")
    with pytest.raises(errors.AdapterChoiceError, match="several"):
        load_model(root)
    assert names(load_model(root, adapter="second")) == ["second", "base"]
    (root / "limner.json").write_text('{"default_adapter": "second"}')
    assert names(load_model(root)) == ["second", "base"]
    assert names(load_model(root, adapter="base")) == ["base", "second"]
    (root / "limner.json").unlink()
    shutil.rmtree(root / "ip_adapter")
    model = load_model(root)
    assert model.adapter is None and model.facts.adapters == () and model.facts.reference_tokens == 0
