"""Backends by name; each is imported only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.backends.base import Backend, BackendStartError
from engine.models.lora_choice import LoraChoice


class UnknownBackendError(BackendStartError, ValueError):
    """No backend of that name, or a type of numbers or a device that it does not compute on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendRequest:
    """What is asked of a backend.

    root: model directory. adapter: file in its ``ip_adapter/`` without suffix. device, dtype: as torch names them.
    buckets: batch sizes in rows; None for the backend's own. cache: folder of built engines; None for the default one.
    loras: fused into the weights.
    """

    root: Path
    adapter: str | None = None
    dtype: str = "float32"
    device: str = "cpu"
    buckets: tuple[int, ...] | None = None
    cache: Path | None = None
    loras: Sequence[LoraChoice] = ()


Creator = Callable[[BackendRequest], Backend]


def _torch(request: BackendRequest) -> Backend:
    import torch

    from engine.models.model import load_model

    try:
        device = torch.device(request.device)
    except RuntimeError as error:
        raise UnknownBackendError(f"no device {request.device!r}: {error}") from error
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if device.type == "cuda":
        dtypes["float16"] = torch.float16
    elif device.type != "cpu":
        raise UnknownBackendError(f"torch backend computes on cpu or cuda, not {request.device}")
    if request.dtype not in dtypes:
        raise UnknownBackendError(
            f"torch backend computes in {' or '.join(dtypes)} on {device.type}, not {request.dtype}"
        )
    dtype = dtypes[request.dtype]
    if device.type == "cuda":
        from engine.backends.torch_programs import check_device

        check_device(device)
    model = load_model(request.root, adapter=request.adapter, dtype=dtype, loras=request.loras)
    if device.type == "cuda":
        from engine.backends.torch_programs import TorchDeviceSettings, torch_device_backend

        settings = TorchDeviceSettings()
        if request.buckets is not None:
            settings = TorchDeviceSettings(buckets=request.buckets)
        return torch_device_backend(model, device, settings)
    from engine.backends.torch_backend import TorchBackend

    return TorchBackend(model)


def _tensorrt(request: BackendRequest) -> Backend:
    from engine.backends.tensorrt_backend import tensorrt_backend

    return tensorrt_backend("tensorrt", request)


def _tensorrt_rtx(request: BackendRequest) -> Backend:
    from engine.backends.tensorrt_backend import tensorrt_backend

    return tensorrt_backend("tensorrt-rtx", request)


CREATORS: dict[str, Creator] = {"torch": _torch, "tensorrt": _tensorrt, "tensorrt-rtx": _tensorrt_rtx}


def create_backend(
    name: str,
    root: Path,
    *,
    adapter: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    buckets: tuple[int, ...] | None = None,
    cache: Path | None = None,
    loras: Sequence[LoraChoice] = (),
) -> Backend:
    """Load the model in ``root`` on a backend, with LoRAs fused and ``adapter`` as its default.

    Raises ``UnknownBackendError``, the ``ModelError`` family and, for a GPU, ``DeviceMissingError`` or the
    ``TensorRTError`` family.
    """
    if name not in CREATORS:
        raise UnknownBackendError(f"no backend {name!r}; there are {', '.join(sorted(CREATORS))}")
    request = BackendRequest(
        root=root, adapter=adapter, dtype=dtype, device=device, buckets=buckets, cache=cache, loras=loras
    )
    return CREATORS[name](request)
