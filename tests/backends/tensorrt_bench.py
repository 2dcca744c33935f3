"""What tests of the TensorRT backends share: a tiny model, its graph's entry, a fake package over its module."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from engine.backends.tensorrt.backend import TensorRTBackend, TensorRTSettings, assemble
from engine.backends.tensorrt.cache import EngineCache
from engine.backends.tensorrt.driver import Gpu
from engine.backends.tensorrt.graph import UNetGraph
from engine.backends.tensorrt.package import TensorRTPackage
from engine.models.model import Model
from tests.backends.fake_tensorrt import DataType, FakeTensorRT, FakeTensorRTRTX, ITensor
from tests.backends.host_stream import HostStream

GPU = Gpu(name="NVIDIA A10", compute_capability="8.6", driver="13.0")


def fake_package(model: Model, *, backend: str = "tensorrt") -> TensorRTPackage:
    """Return a package whose engines compute this model's UNet."""
    width = model.unet.width
    dtype = {torch.float32: DataType.FLOAT, torch.float16: DataType.HALF}[model.text_kv.weight.dtype]
    graph = [
        ITensor("sample", dtype, (-1, model.facts.latent_channels, -1, -1)),
        ITensor("timestep", DataType.FLOAT, (-1,)),
        ITensor("kv_text", dtype, (-1, -1, width)),
        ITensor("kv_ip", dtype, (-1, -1, width)),
        ITensor("ip_mask", dtype, (-1, -1)),
        *(ITensor(name, DataType.FLOAT, (-1, wide)) for name, wide in model.unet.added.widths().items()),
    ]

    def compute(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        with torch.inference_mode():
            output: torch.Tensor = model.unet(**inputs)
            return output

    kind = FakeTensorRTRTX if backend == "tensorrt-rtx" else FakeTensorRT
    module = kind(graph, compute)
    return TensorRTPackage(backend=backend, module=module, version=module.__version__)


def write_graph(
    folder: Path, *, weights: bytes = b"weights", structure: bytes = b"graph", dtype: str = "float32"
) -> UNetGraph:
    """Write a graph's two files with these contents and describe them; the fake parser takes any file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "unet.onnx").write_bytes(structure)
    (folder / "unet.onnx.data").write_bytes(weights)
    return UNetGraph(
        path=folder / "unet.onnx",
        graph=hashlib.sha256(structure).hexdigest(),
        weights=hashlib.sha256(weights).hexdigest(),
        dtype=dtype,
    )


def trt(package: TensorRTPackage) -> FakeTensorRT:
    """Return the fake behind a package."""
    module: FakeTensorRT = package.module
    return module


def make_backend(
    package: TensorRTPackage,
    model: Model,
    graph: UNetGraph,
    cache: Path,
    settings: TensorRTSettings | None = None,
    *,
    gpu: Gpu = GPU,
    stream: HostStream | None = None,
) -> TensorRTBackend:
    """Put a backend together on the CPU."""
    settings = settings or TensorRTSettings(buckets=(1, 2, 4), capacity=8)
    return assemble(
        package,
        gpu,
        model,
        graph,
        EngineCache(cache),
        settings,
        device=torch.device("cpu"),
        stream=stream or HostStream(),
    )
