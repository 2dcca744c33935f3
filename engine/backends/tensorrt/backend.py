"""The TensorRT backends: the UNet as an engine, encoders and decoder through torch on the same GPU."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog
import torch

from engine.backends.base import ModelFacts
from engine.backends.device.backend import DeviceBackend
from engine.backends.device.stream import CudaStream, Stream
from engine.backends.options import BackendOptions, UnknownBackendError
from engine.backends.slotted import SlotSettings
from engine.backends.tensorrt.builder import BuildSettings
from engine.backends.tensorrt.cache import CALIBRATION, EngineCache
from engine.backends.tensorrt.driver import Gpu, find_gpu
from engine.backends.tensorrt.engines import Engines, Obtained, key_of
from engine.backends.tensorrt.errors import DriverMissingError
from engine.backends.tensorrt.graph import UNetGraph, unet_graph
from engine.backends.tensorrt.package import TensorRTPackage, load_package
from engine.backends.tensorrt.profiles import Profile, profiles_of
from engine.backends.tensorrt.runner import TensorRTPrograms, create_runtime, load_engine
from engine.export.cache import cached_export
from engine.export.settings import ExportSettings
from engine.models.dtypes import DTYPES
from engine.models.model import Model, load_model
from engine.models.placement import move_model

log = structlog.get_logger()

BUCKETS = (1, 2, 4, 8, 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRTSettings(SlotSettings):
    """What may be chosen about a TensorRT backend.

    sizes: (height, width) in pixels that the engine runs; none is the model's own size. graphs: a CUDA graph for each
    bucket.
    """

    buckets: tuple[int, ...] = BUCKETS
    sizes: tuple[tuple[int, int], ...] = ()
    graphs: bool = True
    build: BuildSettings = field(default_factory=BuildSettings)

    def profiles(self, facts: ModelFacts) -> tuple[Profile, ...]:
        """Return the profiles of a model's engine. Raises ``ValueError`` for a size that the model cannot draw."""
        sizes = self.sizes or ((facts.default_height, facts.default_width),)
        for height, width in sizes:
            if height % facts.size_multiple or width % facts.size_multiple:
                raise ValueError(f"size {width}x{height} is not a multiple of {facts.size_multiple}")
        return profiles_of(
            self.buckets,
            [(height // facts.latent_scale, width // facts.latent_scale) for height, width in sizes],
            text_tokens=facts.prompt_tokens,
            ip_tokens=max(1, facts.most_reference_tokens * self.max_references),
        )


class TensorRTBackend(DeviceBackend):
    """``DeviceBackend`` on engines from a cache; tells where what is measured of them is kept."""

    def __init__(
        self,
        model: Model,
        programs: TensorRTPrograms,
        obtained: Obtained,
        settings: TensorRTSettings,
        gpu: Gpu,
        package: TensorRTPackage,
        *,
        device: torch.device,
    ) -> None:
        super().__init__(
            model, programs, device=device, capacity=settings.capacity, max_references=settings.max_references
        )
        self.calibration_file: Path | None = None
        self.calibration_key: dict[str, str] = {}
        if obtained.manifest is not None and obtained.folder is not None:
            self.calibration_file = obtained.folder / CALIBRATION
            self.calibration_key = {
                "engine": obtained.manifest.digest,
                "gpu": gpu.name,
                "driver": gpu.driver,
                "package": f"{package.backend} {package.version}",
                "torch": torch.__version__,
                "weights": model.facts.weights_hash,
                "graphs": str(settings.graphs),
            }


def create_tensorrt(
    name: str, root: Path, options: BackendOptions, settings: TensorRTSettings | None = None
) -> TensorRTBackend:
    """Load a model on ``tensorrt`` or ``tensorrt-rtx``, building its engine if the cache has none that matches.

    Raises the ``BackendStartError`` and ``ModelError`` families, and ``ValueError`` for settings that cannot hold.
    """
    settings = (settings or TensorRTSettings()).with_buckets(options.buckets)
    dtype = options.dtype_of(name, tuple(DTYPES), best="float16")
    # The driver first: TensorRT's runtime would end the process without a word.
    gpu = find_gpu(int(options.device.partition(":")[2] or 0))
    package = load_package(name)
    if not options.device.startswith("cuda") or not torch.cuda.is_available():
        raise DriverMissingError(
            f"{name} needs a torch with CUDA beside it",
            expected="device cuda",
            found=f"device {options.device}, torch {torch.__version__}",
        )
    if options.cache is None:
        raise UnknownBackendError(f"{name} backend keeps its engine in a cache, and there is none")
    # The encoders and the decoder are torch's, so what is served is a model directory, never an export.
    exporting = ExportSettings(adapter=options.adapter, dtype=dtype, loras=options.loras)
    graph = unet_graph(cached_export(root, options.cache, exporting))
    model = load_model(root, adapter=options.adapter, dtype=DTYPES[dtype], loras=options.loras)
    device = torch.device(options.device)
    torch.cuda.set_device(device)
    cache = EngineCache(options.cache)
    return assemble(package, gpu, model, graph, cache, settings, device=device, stream=CudaStream(device))


def assemble(
    package: TensorRTPackage,
    gpu: Gpu,
    model: Model,
    graph: UNetGraph,
    cache: EngineCache,
    settings: TensorRTSettings,
    *,
    device: torch.device,
    stream: Stream,
) -> TensorRTBackend:
    """Obtain the engine, load it and put the backend together. Raises the ``TensorRTError`` family."""
    profiles = settings.profiles(model.facts)
    key = key_of(package, gpu, graph, profiles, settings.build, model=model.facts.name)
    obtained = Engines(package, cache, gpu=gpu, report=_report).obtain(key, graph, settings.build)
    runtime, logger = create_runtime(package, gpu)
    engines = [
        load_engine(package, runtime, plan.content, plan.profiles, errors=logger.errors, path=plan.path)
        for plan in obtained.plans
    ]
    programs = TensorRTPrograms(package, engines, stream, graphs=settings.graphs)
    scale, first = model.facts.latent_scale, profiles[0]
    # What a request gets that names no size must be a size that was built.
    facts = replace(model.facts, default_height=first.height * scale, default_width=first.width * scale)
    model = move_model(replace(model, facts=facts), device, unet=False)
    return TensorRTBackend(model, programs, obtained, settings, gpu, package, device=device)


def _report(line: str) -> None:
    log.info("tensorrt", progress=line)
