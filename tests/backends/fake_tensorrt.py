"""A TensorRT without a GPU: the calls that our code makes, with their names and arguments, and an engine that computes.

Whatever is called is in ``calls``. A context refuses to run before everything is set, reads its inputs from the
addresses it was given and writes to the one of its output, so that a wrong binding gives a wrong picture.
``test_fake_tensorrt`` holds every name and argument against the real package.
"""

from __future__ import annotations

import ctypes
import enum
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch

Compute = Callable[[dict[str, torch.Tensor]], torch.Tensor]


class Severity(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class DataType(enum.IntEnum):
    FLOAT = 0
    HALF = 1
    INT32 = 3
    INT64 = 8
    BF16 = 7


class TensorIOMode(enum.IntEnum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class BuilderFlag(enum.IntEnum):
    REFIT = 2
    TF32 = 5
    DISTRIBUTIVE_INDEPENDENCE = 19


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class ExecutionContextAllocationStrategy(enum.IntEnum):
    STATIC = 0
    USER_MANAGED = 2


class DynamicShapesKernelSpecializationStrategy(enum.IntEnum):
    LAZY = 0
    EAGER = 1


class ComputeCapability(enum.IntEnum):
    CURRENT = 1
    SM80 = 80
    SM86 = 86
    SM89 = 89


TYPES = {DataType.FLOAT: torch.float32, DataType.HALF: torch.float16, DataType.BF16: torch.bfloat16}


class ILogger:
    Severity = Severity

    def __init__(self) -> None:
        self.ready = True

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError


class IProgressMonitor:
    def __init__(self) -> None:
        self.ready = True

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError


class ParserError:
    def __init__(self, text: str) -> None:
        self._text = text

    def desc(self) -> str:
        return self._text


class ITensor:
    def __init__(self, name: str, dtype: DataType, shape: tuple[int, ...]) -> None:
        self.name, self.dtype, self.shape = name, dtype, shape


class IOptimizationProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}

    def set_shape(self, input: str, min: tuple[int, ...], opt: tuple[int, ...], max: tuple[int, ...]) -> None:
        assert min == opt == max and all(size > 0 for size in min), "profiles are static"
        self.shapes[input] = tuple(opt)


class ITimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content + b"+timed"


class IBuilderConfig:
    def __init__(self, trt: FakeTensorRT) -> None:
        self._trt = trt
        self.profiles: list[IOptimizationProfile] = []
        self.flags: set[BuilderFlag] = {BuilderFlag.TF32}
        self.builder_optimization_level = 3
        self.num_compute_capabilities = 0
        self.progress_monitor: IProgressMonitor | None = None
        self.cache: ITimingCache | None = None
        self.targets: dict[int, ComputeCapability] = {}

    def set_flag(self, flag: BuilderFlag) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.flags.discard(flag)

    def set_compute_capability(self, compute_capability: ComputeCapability, index: int) -> bool:
        assert index < self.num_compute_capabilities
        self.targets[index] = compute_capability
        return True

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
        return ITimingCache(bytes(serialized_timing_cache))

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if cache.content.startswith(b"other"):
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self.cache


class INetworkDefinition:
    def __init__(self, flags: int) -> None:
        self.strongly_typed = bool(flags & (1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        self.inputs: list[ITensor] = []
        self.weights = ""

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    def get_input(self, index: int) -> ITensor:
        return self.inputs[index]


class FakeTensorRT:
    """The package. ``graph`` are the inputs that every parsed file has; ``compute`` is what every engine computes."""

    __version__ = "10.13.0.35"
    ILogger = ILogger
    IProgressMonitor = IProgressMonitor
    DataType = DataType
    TensorIOMode = TensorIOMode
    BuilderFlag = BuilderFlag
    NetworkDefinitionCreationFlag = NetworkDefinitionCreationFlag
    ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy

    def __init__(self, graph: list[ITensor], compute: Compute) -> None:
        self.graph = graph
        self.compute = compute
        self.calls: list[str] = []
        self.fail: str | None = None
        """What shall fail: parse, build, deserialize, context, execute, refit."""
        self.last_config: IBuilderConfig | None = None
        self.contexts: list[IExecutionContext] = []

    # Bound to this package, as the real classes are to theirs.

    def Builder(self, logger: ILogger) -> Builder:  # noqa: N802
        assert logger.ready
        return Builder(self, logger)

    def OnnxParser(self, network: INetworkDefinition, logger: ILogger) -> OnnxParser:  # noqa: N802
        return OnnxParser(self, network, logger)

    def Runtime(self, logger: ILogger) -> Runtime:  # noqa: N802
        self.calls.append("Runtime")
        return Runtime(self, logger)

    def Refitter(self, engine: ICudaEngine, logger: ILogger) -> Refitter:  # noqa: N802
        return Refitter(self, engine, logger)

    def OnnxParserRefitter(self, refitter: Refitter, logger: ILogger) -> OnnxParserRefitter:  # noqa: N802
        return OnnxParserRefitter(self, refitter, logger)


class FakeTensorRTRTX(FakeTensorRT):
    """The RTX package: builds ahead of time, specialises kernels."""

    __version__ = "1.7.1.116"
    ComputeCapability = ComputeCapability
    DynamicShapesKernelSpecializationStrategy = DynamicShapesKernelSpecializationStrategy


class Builder:
    def __init__(self, trt: FakeTensorRT, logger: ILogger) -> None:
        self._trt, self._logger = trt, logger

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        return INetworkDefinition(flags)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig(self._trt)

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> bytearray | None:
        trt = self._trt
        trt.calls.append("build")
        trt.last_config = config
        assert network.strongly_typed and network.inputs
        assert all(set(profile.shapes) == {t.name for t in network.inputs} for profile in config.profiles)
        independent = BuilderFlag.DISTRIBUTIVE_INDEPENDENCE in config.flags
        if trt.fail == "build" or (independent and len(config.profiles) > 1):
            self._logger.log(Severity.ERROR, "no tactic for node 7")
            return None
        if config.progress_monitor is not None:
            monitor = config.progress_monitor
            assert monitor.ready
            monitor.phase_start("Building engine", None, 4)
            monitor.phase_start("Optimizing", "Building engine", 100)
            monitor.phase_start("Timing", "Optimizing", 1000)
            assert all(monitor.step_complete("Optimizing", step) for step in range(100))
            monitor.phase_finish("Building engine")
        plan = {
            "inputs": [[t.name, int(t.dtype), list(t.shape)] for t in network.inputs],
            "profiles": [{name: list(shape) for name, shape in p.shapes.items()} for p in config.profiles],
            "refit": BuilderFlag.REFIT in config.flags,
            "weights": network.weights,
        }
        return bytearray(json.dumps(plan).encode())


class OnnxParser:
    def __init__(self, trt: FakeTensorRT, network: INetworkDefinition, logger: ILogger) -> None:
        self._trt, self._network = trt, network

    @property
    def num_errors(self) -> int:
        return 1 if self._trt.fail == "parse" else 0

    def get_error(self, index: int) -> ParserError:
        return ParserError("node 3: unsupported operator Foo")

    def parse_from_file(self, model: str) -> bool:
        self._trt.calls.append("parse")
        self._network.inputs = list(self._trt.graph)
        self._network.weights = _weights(model)
        return self._trt.fail != "parse"


def _weights(model: str) -> str:
    return Path(f"{model}.data").read_bytes().hex()


class Runtime:
    def __init__(self, trt: FakeTensorRT, logger: ILogger) -> None:
        self._trt, self._logger = trt, logger

    def deserialize_cuda_engine(self, serialized_engine: Any) -> ICudaEngine | None:
        self._trt.calls.append("deserialize")
        if self._trt.fail == "deserialize":
            self._logger.log(Severity.ERROR, "the engine plan file is generated on an incompatible device")
            return None
        return ICudaEngine(self._trt, json.loads(bytes(serialized_engine)))


class IRuntimeConfig:
    def __init__(self) -> None:
        self.strategy: ExecutionContextAllocationStrategy | None = None
        self.dynamic_shapes_kernel_specialization_strategy = DynamicShapesKernelSpecializationStrategy.LAZY

    def set_execution_context_allocation_strategy(self, strategy: ExecutionContextAllocationStrategy) -> None:
        self.strategy = strategy


class ICudaEngine:
    MEMORY: ClassVar[int] = 4096

    def __init__(self, trt: FakeTensorRT, plan: dict[str, Any]) -> None:
        self._trt, self.plan = trt, plan
        self._tensors = {name: (DataType(dtype), tuple(shape)) for name, dtype, shape in plan["inputs"]}
        dtype, shape = self._tensors["sample"]
        self._tensors["noise"] = (dtype, shape)

    @property
    def refittable(self) -> bool:
        return bool(self.plan["refit"])

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self.plan["profiles"])

    @property
    def device_memory_size_v2(self) -> int:
        return self.MEMORY

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.OUTPUT if name == "noise" else TensorIOMode.INPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return self._tensors[name][0]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[name][1]

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        return [tuple(self.plan["profiles"][profile_index][name])] * 3

    def create_runtime_config(self) -> IRuntimeConfig:
        return IRuntimeConfig()

    def create_execution_context(self, runtime_config: IRuntimeConfig) -> IExecutionContext | None:
        assert runtime_config.strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        if hasattr(self._trt, "DynamicShapesKernelSpecializationStrategy"):
            strategy = runtime_config.dynamic_shapes_kernel_specialization_strategy
            assert strategy is DynamicShapesKernelSpecializationStrategy.EAGER
        if self._trt.fail == "context":
            return None
        context = IExecutionContext(self._trt, self)
        self._trt.contexts.append(context)
        return context

    def serialize(self) -> bytearray:
        return bytearray(json.dumps(self.plan).encode())


class IExecutionContext:
    """Refuses to be used in another order than TensorRT asks for."""

    def __init__(self, trt: FakeTensorRT, engine: ICudaEngine) -> None:
        self._trt, self._engine = trt, engine
        self._memory = 0
        self._profile: int | None = None
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self.runs = 0

    def set_device_memory(self, memory: int, size: int) -> None:
        assert memory % 16 == 0 and size >= self._engine.device_memory_size_v2
        self._memory = memory

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        assert stream_handle == 4242
        self._profile = profile_index
        return profile_index < self._engine.num_optimization_profiles

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self._profile is not None, "shapes come after the profile"
        wanted = tuple(self._engine.get_tensor_profile_shape(name, self._profile)[1])
        self._shapes[name] = tuple(shape)
        return tuple(shape) == wanted

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return memory != 0

    def infer_shapes(self) -> list[str]:
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        inputs = [name for name in names if self._engine.get_tensor_mode(name) is TensorIOMode.INPUT]
        return [name for name in inputs if name not in self._shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._shapes["sample"] if name == "noise" else self._shapes[name]

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert stream_handle == 4242, "not the backend's own stream"
        assert self._memory and self._profile is not None and not self.infer_shapes()
        self._trt.calls.append("execute")
        self.runs += 1
        if self._trt.fail == "execute":
            return False
        inputs = {name: self._read(name, shape) for name, shape in self._shapes.items()}
        self._read("noise", self._shapes["sample"]).copy_(self._trt.compute(inputs))
        return True

    def _read(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        dtype = TYPES[self._engine.get_tensor_dtype(name)]
        raw = (ctypes.c_uint8 * (math.prod(shape) * dtype.itemsize)).from_address(self._addresses[name])
        return torch.frombuffer(raw, dtype=dtype).view(shape)


class Refitter:
    def __init__(self, trt: FakeTensorRT, engine: ICudaEngine, logger: ILogger) -> None:
        self._trt, self.engine, self._logger = trt, engine, logger
        self.weights: str | None = None

    def get_missing_weights(self) -> list[str]:
        return ["conv_in.weight"] if self.weights is None else []

    def refit_cuda_engine(self) -> bool:
        self._trt.calls.append("refit")
        if self._trt.fail == "refit":
            self._logger.log(Severity.ERROR, "weights of another shape")
            return False
        self.engine.plan["weights"] = self.weights
        return True


class OnnxParserRefitter:
    def __init__(self, trt: FakeTensorRT, refitter: Refitter, logger: ILogger) -> None:
        self._refitter = refitter

    @property
    def num_errors(self) -> int:
        return 0

    def get_error(self, index: int) -> ParserError:
        raise AssertionError("there are none")

    def refit_from_file(self, model: str) -> bool:
        self._refitter.weights = _weights(model)
        return True
