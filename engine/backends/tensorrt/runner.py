"""Loaded engines: one execution context and one CUDA graph for each bucket of each size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import torch

from engine.backends.base import LatentShape
from engine.backends.device.backend import BatchInputs, Program
from engine.backends.device.stream import CapturedCall, Stream
from engine.backends.tensorrt.driver import Gpu
from engine.backends.tensorrt.errors import EngineCallError, EngineRefusedError
from engine.backends.tensorrt.package import TensorRTPackage
from engine.backends.tensorrt.profiles import OUTPUT, Profile, check_inputs, torch_type

log = structlog.get_logger()

Allocate = Callable[[int], torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedEngine:
    """A deserialised engine and its profiles, in the engine's order. ``path`` is where it came from, for errors."""

    engine: Any
    profiles: tuple[Profile, ...]
    path: Path | None


def load_engine(
    package: TensorRTPackage,
    runtime: Any,
    plan: Any,
    profiles: Sequence[Profile],
    *,
    errors: Sequence[str] = (),
    path: Path | None = None,
) -> LoadedEngine:
    """Deserialise an engine and hold its profiles against those it should have. Raises ``EngineRefusedError``.

    ``errors`` is the runtime's logger's list of messages, which fills while TensorRT refuses.
    """
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        found = "; ".join(errors) or "no message from TensorRT"
        raise EngineRefusedError(
            f"{package.backend} {package.version} does not load it", path=path, found=found
        )
    if engine.num_optimization_profiles != len(profiles):
        raise EngineRefusedError(
            "engine has other profiles",
            path=path,
            expected=str(len(profiles)),
            found=str(engine.num_optimization_profiles),
        )
    names = _input_names(package, engine)
    check_inputs(names)
    for index, profile in enumerate(profiles):
        for name in names:
            wanted = profile.shape(name, tuple(engine.get_tensor_shape(name)))
            built = [tuple(shape) for shape in engine.get_tensor_profile_shape(name, index)]
            if built != [wanted] * 3:
                raise EngineRefusedError(
                    f"engine's profile {index} is for other shapes",
                    path=path,
                    tensor=name,
                    expected=str(list(wanted)),
                    found=str([list(shape) for shape in built]),
                )
    return LoadedEngine(engine=engine, profiles=tuple(profiles), path=path)


def create_runtime(package: TensorRTPackage, gpu: Gpu) -> tuple[Any, Any]:
    """Return a runtime and its logger. ``gpu`` is the proof that there is a driver: without one this would crash."""
    logger = package.logger()
    log.info("tensorrt runtime", backend=package.backend, version=package.version, gpu=gpu.name)
    return package.module.Runtime(logger), logger


def _input_names(package: TensorRTPackage, engine: Any) -> list[str]:
    mode = package.module.TensorIOMode.INPUT
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    return [name for name in names if engine.get_tensor_mode(name) == mode]


class TensorRTPrograms:
    """``Programs`` of loaded engines. All contexts share one block of device memory: they never run at once."""

    def __init__(
        self,
        package: TensorRTPackage,
        engines: Sequence[LoadedEngine],
        stream: Stream,
        *,
        graphs: bool = True,
        allocate: Allocate | None = None,
    ) -> None:
        self._package = package
        self._stream = stream
        self._graphs = graphs
        self._places = {
            (profile.rows, profile.height, profile.width): (loaded, index)
            for loaded in engines
            for index, profile in enumerate(loaded.profiles)
        }
        first = engines[0].engine
        self.one_width = True
        self.dtype: torch.dtype = torch_type(package.module, first.get_tensor_dtype("sample"))
        self._channels = int(tuple(first.get_tensor_shape("sample"))[1])
        size = max(1, *(loaded.engine.device_memory_size_v2 for loaded in engines))
        self._memory = (allocate or self._allocate)(size)

    def buckets(self, shape: LatentShape) -> tuple[int, ...]:
        """Return the batch sizes in rows that were built for this latent shape; none for a size that was not."""
        channels, height, width = shape
        if channels != self._channels:
            return ()
        return tuple(sorted(rows for rows, *size in self._places if size == [height, width]))

    def program(self, inputs: BatchInputs) -> Program:
        """Make the program for these inputs. Raises ``EngineCallError``."""
        rows, _, height, width = inputs.sample.shape
        loaded, index = self._places[rows, height, width]
        return TensorRTProgram(
            self._package, loaded, index, inputs, self._stream, memory=self._memory, graphs=self._graphs
        )

    def _allocate(self, size: int) -> torch.Tensor:
        return torch.empty(size, dtype=torch.uint8, device=self._stream.device)


class TensorRTProgram:
    """One bucket of one size: an execution context whose tensors were bound once."""

    def __init__(
        self,
        package: TensorRTPackage,
        loaded: LoadedEngine,
        index: int,
        inputs: BatchInputs,
        stream: Stream,
        *,
        memory: torch.Tensor,
        graphs: bool,
    ) -> None:
        self._engine = loaded.engine
        self._path = loaded.path
        self._stream = stream
        self._context = _create_context(package, loaded.engine)
        # TensorRT wants 256 bytes; torch's allocator aligns to 512.
        self._context.set_device_memory(memory.data_ptr(), memory.numel())
        self._check(
            self._context.set_optimization_profile_async(index, stream.handle),
            "set_optimization_profile_async",
        )
        stream.synchronize()
        named = inputs.named()
        # What TensorRT reads must live as long as the context.
        self._bound = [
            memory,
            *(self._bind(package, name, named) for name in _input_names(package, loaded.engine)),
        ]
        if missing := self._context.infer_shapes():
            raise EngineCallError(
                "tensors have no shape or address", path=self._path, found=", ".join(missing)
            )
        shape = tuple(self._context.get_tensor_shape(OUTPUT))
        if shape != tuple(inputs.sample.shape):
            raise EngineCallError(
                "the engine gives another shape than it takes",
                path=self._path,
                tensor=OUTPUT,
                expected=str(list(inputs.sample.shape)),
                found=str(list(shape)),
            )
        dtype = torch_type(package.module, loaded.engine.get_tensor_dtype(OUTPUT))
        self._output = torch.empty(shape, dtype=dtype, device=stream.device)
        self._check(self._context.set_tensor_address(OUTPUT, self._output.data_ptr()), "set_tensor_address")
        name = "{} {}x{}x{}x{}".format(package.backend, *shape)
        self.call = CapturedCall(self._enqueue, stream, name=name, graphs=graphs)

    def __call__(self) -> torch.Tensor:
        """Return the engine's output on the inputs as they are now."""
        self.call()
        return self._output

    def _enqueue(self) -> None:
        self._check(self._context.execute_async_v3(self._stream.handle), "execute_async_v3")

    def _bind(self, package: TensorRTPackage, name: str, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        if name not in inputs:
            raise EngineCallError(
                "the engine takes an input that the backend does not have", path=self._path, tensor=name
            )
        tensor = inputs[name]
        dtype = torch_type(package.module, self._engine.get_tensor_dtype(name))
        if tensor.dtype != dtype or not tensor.is_contiguous():
            raise EngineCallError(
                "the backend holds the tensor in another type than the engine takes",
                path=self._path,
                tensor=name,
                expected=f"{dtype}, contiguous",
                found=f"{tensor.dtype}, strides {tensor.stride()}",
            )
        shape = tuple(tensor.shape)
        self._check(self._context.set_input_shape(name, shape), "set_input_shape", name, str(list(shape)))
        self._check(self._context.set_tensor_address(name, tensor.data_ptr()), "set_tensor_address", name)
        return tensor

    def _check(self, accepted: bool, call: str, tensor: str | None = None, found: str | None = None) -> None:
        if not accepted:
            raise EngineCallError(f"TensorRT refuses {call}", path=self._path, tensor=tensor, found=found)


def _create_context(package: TensorRTPackage, engine: Any) -> Any:
    """Create a context whose device memory is ours, with kernels compiled before the first graph is captured."""
    trt = package.module
    strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    if not hasattr(engine, "create_runtime_config"):
        context = engine.create_execution_context(strategy)
    else:
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        if hasattr(trt, "DynamicShapesKernelSpecializationStrategy"):
            # TensorRT-RTX compiles on the device; lazily, a graph would keep the slow kernels of the first calls.
            eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
            config.dynamic_shapes_kernel_specialization_strategy = eager
        context = engine.create_execution_context(config)
    if context is None:
        raise EngineCallError("TensorRT creates no execution context")
    return context
