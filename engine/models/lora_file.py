"""A LoRA's safetensors file, in the key formats of kohya's trainer and of diffusers and peft."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from engine.models.errors import (
    CorruptFileError,
    MissingFileError,
    MissingTensorError,
    PickleRefusedError,
    TensorShapeError,
    UnexpectedTensorError,
    UnsupportedModelError,
)
from engine.models.layout import PICKLES
from engine.models.lora_choice import LoraChoice
from engine.models.weights import Tensors, read_tensors

COMPONENTS = (
    # kohya: the layer's path with underscores for dots
    ("lora_unet_", "unet"),
    ("lora_te1_", "text_encoder"),
    ("lora_te2_", "text_encoder_2"),
    ("lora_te_", "text_encoder"),
    # diffusers and peft: the layer's path
    ("base_model.model.unet.", "unet"),
    ("base_model.model.", "unet"),
    ("unet.", "unet"),
    ("text_encoder.", "text_encoder"),
    ("text_encoder_2.", "text_encoder_2"),
    # diffusers' older UNets alone
    ("down_blocks.", "unet"),
    ("mid_block.", "unet"),
    ("up_blocks.", "unet"),
)
BARE = ("down_blocks.", "mid_block.", "up_blocks.")
HALVES = {"down": "down", "A": "down", "up": "up", "B": "up"}
PART = re.compile(
    r"\.(?:lora_(down|up|A|B)|lora\.(down|up)|lora_linear_layer\.(down|up))(?:\.default)?\.weight$"
)
PROCESSOR = re.compile(r"\.processor\.(to_q|to_k|to_v|to_out)_lora\.(down|up)\.weight$")
OTHERS = re.compile(r"dora_scale|magnitude_vector|hada_|lokr_|lora_mid|oft_|\.diff(_b)?$|glora|ia3|boft")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraLayer:
    """One layer's change of weights: ``factor`` * ``up [outputs, rank]`` @ ``down [rank, inputs]``, in one file.

    ``layer`` is its path with underscores for dots and without ``text_model``. ``key`` names the tensor of ``down``.
    """

    path: Path
    component: str
    layer: str
    key: str
    down: torch.Tensor
    up: torch.Tensor
    factor: float


def read_lora(choice: LoraChoice) -> list[LoraLayer]:
    """Read a LoRA. Raises the ``ModelError`` family: pickles, other kinds of adapters, halves without their other."""
    path = choice.path
    if not path.is_file():
        raise MissingFileError("LoRA is missing", path=path)
    if path.suffix in PICKLES:
        raise PickleRefusedError("LoRA is a pickle", path=path, expected="*.safetensors")
    tensors = read_tensors([path])
    settings = _peft_settings(path)
    halves: dict[tuple[str, str], dict[str, str]] = {}
    alphas: dict[tuple[str, str], str] = {}
    for key in tensors:
        component, name = _component(path, key)
        if name.endswith(".alpha"):
            _check_shape(path, key, tensors[key], tensors[key].numel() == 1, "a number")
            alphas[component, _flat(name.removesuffix(".alpha"))] = key
            continue
        layer, half = _half(path, key, name)
        mine = halves.setdefault((component, _flat(layer)), {})
        if half in mine:
            raise UnexpectedTensorError(
                f"LoRA has a {half} twice, also as {mine[half]}", path=path, tensor=key
            )
        mine[half] = key
    for at, key in alphas.items():
        if at not in halves:
            raise MissingTensorError("LoRA has an alpha without its weights", path=path, tensor=key)
    return [
        _layer(
            choice,
            tensors,
            at,
            keys,
            float(tensors[alphas[at]]) if at in alphas else None,
            settings.get(at[0], {}),
        )
        for at, keys in halves.items()
    ]


def _layer(
    choice: LoraChoice,
    tensors: Tensors,
    at: tuple[str, str],
    keys: dict[str, str],
    alpha: float | None,
    settings: dict[str, Any],
) -> LoraLayer:
    for half in ("down", "up"):
        if half not in keys:
            (other,) = keys.values()
            raise MissingTensorError(
                f"LoRA has one half of a layer, without its {half}", path=choice.path, tensor=other
            )
        matrix = tensors[keys[half]]
        sound = matrix.dim() in (2, 4) and matrix.numel() > 0
        _check_shape(choice.path, keys[half], matrix, sound, "a matrix or a convolution")
    down, up = tensors[keys["down"]], tensors[keys["up"]]
    rank = down.shape[0]
    if alpha is None:
        alpha = float(settings.get("lora_alpha", rank))
    divisor = rank**0.5 if settings.get("use_rslora") else rank
    return LoraLayer(
        path=choice.path,
        component=at[0],
        layer=at[1],
        key=keys["down"],
        down=down,
        up=up,
        factor=choice.scale * alpha / divisor,
    )


def _check_shape(path: Path, key: str, tensor: torch.Tensor, sound: bool, expected: str) -> None:
    if not sound:
        raise TensorShapeError(
            "tensor of a LoRA has another shape",
            path=path,
            tensor=key,
            expected=expected,
            found=str(list(tensor.shape)),
        )


def _component(path: Path, key: str) -> tuple[str, str]:
    for prefix, component in COMPONENTS:
        if key.startswith(prefix):
            return component, key if prefix in BARE else key.removeprefix(prefix)
    raise UnexpectedTensorError("tensor belongs to no LoRA that is known here", path=path, tensor=key)


def _half(path: Path, key: str, name: str) -> tuple[str, str]:
    """Split a name into the layer and ``down`` or ``up``."""
    found = PART.search(name)
    if found:
        return name[: found.start()], HALVES[next(group for group in found.groups() if group)]
    found = PROCESSOR.search(name)
    if found:
        projection = "to_out.0" if found[1] == "to_out" else found[1]
        return f"{name[: found.start()]}.{projection}", found[2]
    if OTHERS.search(name):
        raise UnsupportedModelError(
            "this kind of adapter (DoRA, LoHa, LoKr or the like) cannot be fused", path=path, tensor=key
        )
    raise UnexpectedTensorError("tensor belongs to no LoRA that is known here", path=path, tensor=key)


def _flat(layer: str) -> str:
    return layer.replace(".", "_").removeprefix("text_model_")


def _peft_settings(path: Path) -> dict[str, dict[str, Any]]:
    """Read peft's configuration by component from the file's header, where diffusers has written it.

    Source: diffusers ``loaders/lora_base.py`` (``lora_adapter_metadata``).
    """
    with safe_open(path, framework="pt", device="cpu") as file:
        text = (file.metadata() or {}).get("lora_adapter_metadata")
    if text is None:
        return {}
    try:
        flat = json.loads(text)
        settings: dict[str, dict[str, Any]] = {}
        for key, value in flat.items():
            component, _, name = key.partition(".")
            settings.setdefault(component, {})[name] = value
    except (ValueError, AttributeError) as error:
        raise CorruptFileError("LoRA's metadata cannot be read", path=path, found=str(error)) from error
    for component, values in settings.items():
        # Ranks are read off the tensors; a pattern of alphas would have to be matched as peft does.
        for name in ("use_dora", "alpha_pattern"):
            if values.get(name):
                raise UnsupportedModelError(
                    f"LoRA setting {component}.{name} is not supported", path=path, found=repr(values[name])
                )
    return settings
