"""The UNet as a torch module on a GPU, one CUDA graph for each bucket and size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from engine.backends.base import BackendStartError, LatentShape
from engine.backends.device.backend import BatchInputs, DeviceBackend, Program
from engine.backends.device.stream import CapturedCall, CudaStream, Stream
from engine.backends.options import BackendOptions, UnknownBackendError
from engine.backends.slotted import SlotSettings
from engine.models.dtypes import DTYPES
from engine.models.model import Model, load_model
from engine.models.placement import move_model
from engine.models.unet import ConditionedUNet


class DeviceMissingError(BackendStartError):
    """The device that was asked for is not there; says what is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchDeviceSettings(SlotSettings):
    """What may be chosen about torch on a GPU.

    ``graphs`` captures a CUDA graph for each bucket; ``compile`` runs the UNet through ``torch.compile`` first (minutes
    for each bucket of a large model). ``channels_last`` lays the convolutions' weights out that way, faster on an
    H100 only below 8 rows of SD 1.5 (docs/benchmarks.md).
    """

    buckets: tuple[int, ...] = (1, 2, 4, 8, 16)
    graphs: bool = True
    compile: bool = False
    channels_last: bool = False


class TorchPrograms:
    """``Programs`` of a module; every size that the model takes runs."""

    def __init__(self, unet: ConditionedUNet, stream: Stream, settings: TorchDeviceSettings) -> None:
        self.dtype = next(unet.parameters()).dtype
        self.one_width = False
        self._buckets = tuple(sorted(settings.buckets))
        if settings.channels_last:
            unet = unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network: Callable[..., torch.Tensor] = unet
        if settings.compile:
            self._network = torch.compile(unet, dynamic=False)
        self._stream = stream
        self._graphs = settings.graphs

    def buckets(self, shape: LatentShape) -> tuple[int, ...]:
        """Return the batch sizes in rows; the same for every shape."""
        return self._buckets

    def program(self, inputs: BatchInputs) -> Program:
        """Make the program for these inputs."""
        return TorchProgram(self._network, inputs, self._stream, graphs=self._graphs)


class TorchProgram:
    """One bucket of one size."""

    def __init__(
        self, network: Callable[..., torch.Tensor], inputs: BatchInputs, stream: Stream, *, graphs: bool
    ) -> None:
        self._network = network
        self._inputs = inputs
        self._output: torch.Tensor | None = None
        name = "torch {}x{}x{}x{}".format(*inputs.sample.shape)
        self.call = CapturedCall(self._forward, stream, name=name, graphs=graphs)

    def __call__(self) -> torch.Tensor:
        """Return the module's output on the inputs as they are now."""
        self.call()
        assert self._output is not None
        return self._output

    def _forward(self) -> None:
        with torch.inference_mode():
            self._output = self._network(**self._inputs.named())


def torch_device_backend(
    model: Model, device: torch.device, settings: TorchDeviceSettings | None = None
) -> DeviceBackend:
    """Put a model on a CUDA device and return its backend. Raises ``DeviceMissingError``."""
    check_device(device)
    settings = settings or TorchDeviceSettings()
    torch.cuda.set_device(device)
    if next(model.unet.parameters()).dtype == torch.float32:
        # cuDNN would take TensorFloat-32, ten bits, and pictures would leave diffusers' by more than rounding.
        torch.backends.cudnn.allow_tf32 = False
    model = move_model(model, device)
    return DeviceBackend(
        model,
        TorchPrograms(model.unet, CudaStream(device), settings),
        device=device,
        capacity=settings.capacity,
        max_references=settings.max_references,
    )


def create_torch_on_device(root: Path, options: BackendOptions) -> DeviceBackend:
    """Load a model on a CUDA device. Raises the ``BackendStartError`` and ``ModelError`` families."""
    dtype = DTYPES[options.dtype_of("torch", tuple(DTYPES), best="float16")]
    try:
        device = torch.device(options.device)
    except RuntimeError as error:
        raise UnknownBackendError(f"no device {options.device!r}: {error}") from error
    check_device(device)
    settings = TorchDeviceSettings().with_buckets(options.buckets)
    return torch_device_backend(
        load_model(root, adapter=options.adapter, dtype=dtype, loras=options.loras), device, settings
    )


def check_device(device: torch.device) -> None:
    """Raise ``DeviceMissingError`` unless torch can compute on this CUDA device."""
    if device.type != "cuda" or not torch.cuda.is_available():
        raise DeviceMissingError(f"no device {device}: torch {torch.__version__} sees no CUDA device")
    if (device.index or 0) >= torch.cuda.device_count():
        raise DeviceMissingError(f"no device {device}: there are {torch.cuda.device_count()}")
