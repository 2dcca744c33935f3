"""Read safetensors into a module, checking that names, shapes and values are what the configuration calls for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from engine.files.digest import sha256_of
from engine.models.errors import (
    CorruptFileError,
    MissingTensorError,
    NotFiniteError,
    TensorShapeError,
    UnexpectedTensorError,
)

Tensors = dict[str, torch.Tensor]


def read_tensors(paths: Sequence[Path]) -> Tensors:
    """Read all tensors of one or more safetensors files, in the type they are stored in.

    Raises ``CorruptFileError`` for a file that is not safetensors, and ``NotFiniteError`` for NaN or infinity.
    """
    tensors: Tensors = {}
    for path in paths:
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                for name in file.keys():  # noqa: SIM118 - safe_open is no mapping
                    tensors[name] = file.get_tensor(name)
                    check_finite(path, name, tensors[name])
        except (SafetensorError, OSError, ValueError) as error:
            raise CorruptFileError("not readable as safetensors", path=path, found=str(error)) from error
    return tensors


def check_finite(path: Path, name: str, tensor: torch.Tensor) -> None:
    """Raise ``NotFiniteError`` if a floating tensor holds NaN or infinity."""
    # The sum is NaN or infinite if any element is, and needs no mask of the tensor's size.
    if tensor.is_floating_point() and not torch.isfinite(tensor.sum(dtype=torch.float32)):
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise NotFiniteError(
                "weights are not finite",
                path=path,
                tensor=name,
                expected="finite values",
                found=f"{bad} not finite",
            )


def check_tensor(
    path: Path, tensors: Mapping[str, torch.Tensor], name: str, shape: Sequence[int]
) -> torch.Tensor:
    """Return one tensor. Raises ``MissingTensorError`` or ``TensorShapeError``."""
    if name not in tensors:
        raise MissingTensorError("tensor is missing", path=path, tensor=name, expected=str(list(shape)))
    tensor = tensors[name]
    if list(tensor.shape) != list(shape):
        raise TensorShapeError(
            "tensor has another shape",
            path=path,
            tensor=name,
            expected=str(list(shape)),
            found=str(list(tensor.shape)),
        )
    return tensor


def build_module(
    build: Callable[[], nn.Module],
    tensors: Tensors,
    path: Path,
    *,
    dtype: torch.dtype,
    ignore: Sequence[str] = (),
) -> nn.Module:
    """Build a module without initialising it and give it these weights as ``dtype``, in evaluation mode.

    ``ignore`` are names that older files hold and newer modules compute (``position_ids``). Raises
    ``MissingTensorError``, ``UnexpectedTensorError``, ``TensorShapeError``.
    """
    with torch.device("meta"):
        module = build()
    wanted = module.state_dict()
    for name in tensors:
        if name not in wanted and name not in ignore:
            raise UnexpectedTensorError(
                "tensor has no place in the model",
                path=path,
                tensor=name,
                found=str(list(tensors[name].shape)),
            )
    state = {
        name: check_tensor(path, tensors, name, tuple(value.shape)).to(dtype)
        for name, value in wanted.items()
    }
    module.load_state_dict(state, strict=True, assign=True)
    _restore_position_ids(module)
    return module.eval().requires_grad_(False)


def _restore_position_ids(module: nn.Module) -> None:
    # CLIP's only buffer; it is not saved, so a module built on the meta device lacks its values.
    for owner in module.modules():
        for name, buffer in list(owner.named_buffers(recurse=False)):
            if buffer.is_meta:
                assert name == "position_ids", name
                owner.register_buffer(
                    name, torch.arange(buffer.shape[-1]).expand(buffer.shape), persistent=False
                )


def hash_files(root: Path, paths: Sequence[Path], known: dict[Path, str] | None = None) -> str:
    """Return the SHA-256 (hex) over the names (relative to ``root``) and the contents of these files.

    ``known`` keeps the contents' digests from call to call, so that a file of gigabytes is read once.
    """
    digest = hashlib.sha256()
    known = {} if known is None else known
    for path in sorted(paths):
        if path not in known:
            known[path] = sha256_of(path)
        digest.update(f"{path.relative_to(root).as_posix()}\0{known[path]}\n".encode())
    return digest.hexdigest()
