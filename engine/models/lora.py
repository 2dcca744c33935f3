"""LoRAs fused into the weights that a model is loaded from: after that the model is like any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from engine.files.digest import sha256_of
from engine.models.errors import TensorShapeError, UnexpectedTensorError
from engine.models.lora_choice import LoraChoice
from engine.models.lora_file import LoraLayer, read_lora
from engine.models.weights import Tensors


class LoraSet:
    """The LoRAs of one model while it is loaded. Each layer's change is added once, in the order of the files."""

    def __init__(self, layers: Sequence[LoraLayer], identity: str) -> None:
        self._layers = list(layers)
        self.identity = identity
        """Says which files at which scales; empty if there are none."""

    @classmethod
    def read(cls, choices: Sequence[LoraChoice]) -> LoraSet:
        """Read LoRAs. Raises the ``ModelError`` family."""
        layers: list[LoraLayer] = []
        lines: list[str] = []
        for choice in choices:
            layers += read_lora(choice)
            lines.append(f"{sha256_of(choice.path)} {choice.scale!r}")
        return cls(layers, "\n".join(lines))

    def fuse(self, component: str, tensors: Tensors, aliases: Mapping[str, str] | None = None) -> None:
        """Add the changes of a component's layers to its weights, in place of ``tensors``' entries, in f32.

        W + scale * alpha / rank * up @ down, arXiv 2106.09685. ``aliases`` maps prefixes of other names of layers to
        this component's. Raises ``UnexpectedTensorError`` for a layer that the component lacks, ``TensorShapeError``
        for one of another size.
        """
        mine = [layer for layer in self._layers if layer.component == component]
        if not mine:
            return
        self._layers = [layer for layer in self._layers if layer.component != component]
        names = {
            name.removesuffix(".weight").removeprefix("text_model.").replace(".", "_"): name
            for name in tensors
            if name.endswith(".weight")
        }
        done: set[tuple[Path, str]] = set()
        for layer in mine:
            name = names.get(layer.layer) or names.get(_alias(layer.layer, aliases or {}))
            if name is None:
                raise UnexpectedTensorError(
                    f"LoRA changes a layer that the {component} lacks; it is for another base model",
                    path=layer.path,
                    tensor=layer.key,
                )
            if (layer.path, name) in done:
                raise UnexpectedTensorError(
                    "LoRA changes a layer twice, under two names", path=layer.path, tensor=layer.key
                )
            done.add((layer.path, name))
            tensors[name] = _fused(tensors[name], layer)

    def check_all_used(self) -> None:
        """Raise ``UnexpectedTensorError`` if a LoRA changes a component that the model does not have."""
        for layer in self._layers:
            raise UnexpectedTensorError(
                f"LoRA changes a {layer.component}, which the model lacks; it is for another base model",
                path=layer.path,
                tensor=layer.key,
            )


def _alias(layer: str, aliases: Mapping[str, str]) -> str:
    for other, ours in aliases.items():
        if layer == other or layer.startswith(f"{other}_"):
            return ours + layer.removeprefix(other)
    return layer


def _fused(weight: torch.Tensor, layer: LoraLayer) -> torch.Tensor:
    # A convolution's halves are a convolution of the kernel's size and one of 1x1: matrices once flattened.
    flat = weight.flatten(1)
    down, up = layer.down.flatten(1), layer.up.flatten(1)
    rank = down.shape[0]
    wanted = ([rank, flat.shape[1]], [flat.shape[0], rank])
    found = (list(down.shape), list(up.shape))
    if found != wanted:
        raise TensorShapeError(
            "LoRA does not fit the layer; it is for another base model",
            path=layer.path,
            tensor=layer.key,
            expected=f"down {wanted[0]}, up {wanted[1]}",
            found=f"down {found[0]}, up {found[1]}",
        )
    change = up.float() @ down.float()
    return weight.float() + layer.factor * change.view(weight.shape)
