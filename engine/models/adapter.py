"""IP-Adapters in h94's published key layout: base, light, plus, plus-face and full-face."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from engine.models.errors import (
    MissingTensorError,
    ModelError,
    TensorShapeError,
    UnexpectedTensorError,
    UnsupportedModelError,
)
from engine.models.projection import KVProjector, concat_kv
from engine.models.unet import ConditionedUNet
from engine.models.weights import Tensors, check_tensor, read_tensors

AdapterKind = Literal["base", "plus", "full"]
"""``base`` projects the pooled embedding (base and light files), ``plus`` resamples the penultimate hidden states
(plus and plus-face), ``full`` projects each of them (full-face)."""


BASES = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "SDXL"}
"""Published UNets by the width of the tokens that they attend to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageAdapter:
    """A loaded adapter: ``projection`` maps image features to tokens ``[N, tokens, E]``, ``kv`` those to K/V."""

    name: str
    kind: AdapterKind
    path: Path
    projection: nn.Module
    kv: KVProjector

    @property
    def takes_hidden_states(self) -> bool:
        """Whether the projection takes the penultimate hidden states, not the pooled embedding."""
        return self.kind != "base"


def adapter_kind(path: Path, projection: Tensors) -> AdapterKind:
    """Tell an adapter's kind from its projection's keys, as diffusers' loaders/unet.py does."""
    if "proj.weight" in projection:
        return "base"
    if "proj.3.weight" in projection:
        return "full"
    if "perceiver_resampler.proj_in.weight" in projection or "proj.2.weight" in projection:
        raise UnsupportedModelError(
            "FaceID adapters are not supported: they read a face recogniser's embedding, and their LoRA changes every "
            "attention layer, so their rows could not share a UNet with others",
            path=path,
        )
    if "latents" in projection:
        return "plus"
    raise MissingTensorError(
        "no known image projection",
        path=path,
        tensor="image_proj.*",
        expected="proj.weight, proj.3.weight or latents",
    )


def load_adapter(path: Path, unet: ConditionedUNet, *, token_width: int, dtype: torch.dtype) -> ImageAdapter:
    """Load an adapter for this UNet. ``token_width`` is the UNet's ``cross_attention_dim``.

    Raises the ``ModelError`` family, naming the tensor at fault.
    """
    tensors = read_tensors([path])
    projection: Tensors = {}
    attention: Tensors = {}
    for name, tensor in tensors.items():
        group, _, rest = name.partition(".")
        if group not in ("image_proj", "ip_adapter"):
            raise UnexpectedTensorError("tensor belongs to no adapter", path=path, tensor=name)
        (projection if group == "image_proj" else attention)[rest] = tensor
    kind = adapter_kind(path, projection)
    _check_base(path, attention, unet, token_width)
    prefixed = {f"ip_adapter.{key}": tensor for key, tensor in attention.items()}
    pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
    for index, layer in enumerate(unet.columns):
        # Self-attention layers take the even numbers.
        keys = [f"{2 * index + 1}.to_{which}_ip.weight" for which in "kv"]
        for key in keys:
            check_tensor(path, prefixed, f"ip_adapter.{key}", (layer.width, token_width))
        pairs.append((attention.pop(keys[0]).to(dtype), attention.pop(keys[1]).to(dtype)))
    for key in attention:
        raise UnexpectedTensorError(
            "adapter is for a UNet with more layers, or carries LoRA weights",
            path=path,
            tensor=f"ip_adapter.{key}",
        )
    return ImageAdapter(
        name=path.stem,
        kind=kind,
        path=path,
        projection=_build_projection(path, projection, token_width).to(dtype).eval().requires_grad_(False),
        kv=KVProjector(concat_kv(pairs), unet.columns),
    )


def _check_base(path: Path, attention: Tensors, unet: ConditionedUNet, token_width: int) -> None:
    """Raise ``TensorShapeError`` if the adapter was trained beside another kind of UNet."""
    first = "1.to_k_ip.weight"
    if first not in attention or attention[first].dim() != 2:
        return
    width = int(attention[first].shape[1])
    layers = sum(key.endswith(".to_k_ip.weight") for key in attention)
    if width != token_width:
        raise TensorShapeError(
            f"adapter is for another base model, {_base(width)}; this one is {_base(token_width)}",
            path=path,
            tensor=f"ip_adapter.{first}",
            expected=f"tokens of width {token_width} for {len(unet.columns)} layers",
            found=f"width {width} for {layers} layers",
        )


def _base(token_width: int) -> str:
    return BASES.get(token_width, f"with tokens of width {token_width}")


def _build_projection(path: Path, tensors: Tensors, token_width: int) -> nn.Module:
    # The conversion of keys is diffusers' own; it uses nothing of its class when memory is not at stake.
    from diffusers.loaders.unet import UNet2DConditionLoadersMixin

    converter: Any = UNet2DConditionLoadersMixin()
    try:
        module: nn.Module = converter._convert_ip_adapter_image_proj_to_diffusers(  # noqa: SLF001
            tensors, low_cpu_mem_usage=False
        )
    except KeyError as error:
        raise MissingTensorError(
            "tensor is missing from the projection", path=path, tensor=f"image_proj.{error.args[0]}"
        ) from error
    except RuntimeError as error:
        # load_state_dict's report: its first finding says which family the error belongs to, and names the tensor.
        raise _projection_error(path, str(error)) from error
    # The last norm of every projection runs over tokens.
    norm: Any = module.get_submodule("norm_out" if hasattr(module, "norm_out") else "norm")
    width = int(norm.normalized_shape[0])
    if width != token_width:
        raise UnsupportedModelError(
            "adapter gives tokens of another width than the UNet takes",
            path=path,
            tensor="image_proj.*",
            expected=str(token_width),
            found=str(width),
        )
    return module


def _projection_error(path: Path, report: str) -> ModelError:
    shape = re.search(
        r"size mismatch for (\S+): copying a param with shape torch\.Size\((.*?)\) .* is torch\.Size\((.*?)\)",
        report,
    )
    if shape:
        return TensorShapeError(
            "tensor has another shape",
            path=path,
            tensor=f"image_proj.{shape[1]}",
            expected=shape[3],
            found=shape[2],
        )
    missing = re.search(r'Missing key\(s\) in state_dict: "([^"]+)"', report)
    if missing:
        return MissingTensorError(
            "tensor is missing from the projection", path=path, tensor=f"image_proj.{missing[1]}"
        )
    extra = re.search(r'Unexpected key\(s\) in state_dict: "([^"]+)"', report)
    if extra:
        return UnexpectedTensorError("tensor has no place", path=path, tensor=f"image_proj.{extra[1]}")
    return ModelError(report, path=path)
