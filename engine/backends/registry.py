"""Backends by name; each is imported only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from engine.backends.base import Backend
from engine.backends.options import BackendOptions, UnknownBackendError
from engine.models.lora_choice import LoraChoice

__all__ = ["CREATORS", "UnknownBackendError", "create_backend"]

Creator = Callable[[Path, BackendOptions], Backend]


def _torch(root: Path, options: BackendOptions) -> Backend:
    from engine.backends.torch_backend import TorchBackend
    from engine.models.dtypes import DTYPES
    from engine.models.model import load_model

    if options.device.startswith("cuda"):
        from engine.backends.device.torch_programs import create_torch_on_device

        return create_torch_on_device(root, options)
    dtype = DTYPES[options.dtype_of("torch", ("float32", "bfloat16"))]
    return TorchBackend(load_model(root, adapter=options.adapter, dtype=dtype, loras=options.loras))


def _openvino(root: Path, options: BackendOptions) -> Backend:
    from engine.backends.compiled.create import create_openvino

    return create_openvino(root, options)


def _onnxruntime(root: Path, options: BackendOptions) -> Backend:
    from engine.backends.compiled.create import create_onnxruntime

    return create_onnxruntime(root, options)


def _tensorrt(name: str, root: Path, options: BackendOptions) -> Backend:
    from engine.backends.tensorrt.backend import create_tensorrt

    return create_tensorrt(name, root, options)


CREATORS: dict[str, Creator] = {
    "torch": _torch,
    "openvino": _openvino,
    "onnxruntime": _onnxruntime,
    "tensorrt": partial(_tensorrt, "tensorrt"),
    "tensorrt-rtx": partial(_tensorrt, "tensorrt-rtx"),
}


def create_backend(
    name: str,
    root: Path,
    *,
    adapter: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    threads: int | None = None,
    lanes: int = 1,
    buckets: tuple[int, ...] | None = None,
    cache: Path | None = None,
    loras: Sequence[LoraChoice] = (),
) -> Backend:
    """Load a model directory, or for a compiled backend an export, on a backend; see ``BackendOptions``.

    Raises the ``BackendStartError`` family (``UnknownBackendError``, and for a GPU ``DeviceMissingError`` and
    ``TensorRTError``) and the ``ModelError`` family.
    """
    if name not in CREATORS:
        raise UnknownBackendError(f"no backend {name!r}; there are {', '.join(sorted(CREATORS))}")
    if lanes != 1 and name != "openvino":
        raise UnknownBackendError(
            f"{name} backend runs a tick in one lane, not in {lanes}; openvino has lanes"
        )
    options = BackendOptions(
        adapter=adapter,
        dtype=dtype,
        device=device,
        threads=threads,
        lanes=lanes,
        buckets=buckets,
        cache=cache,
        loras=tuple(loras),
    )
    return CREATORS[name](root, options)
