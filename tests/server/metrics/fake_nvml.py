"""A module object shaped like `pynvml`, for as many GPUs as a test wants, each with the features that it wants."""

from __future__ import annotations

import ctypes
from collections import deque
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


class NVMLError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(f"NVML error {value}")
        self.value = value


class _GpmMetric(ctypes.Structure):
    _fields_ = (("metricId", ctypes.c_uint), ("nvmlReturn", ctypes.c_uint), ("value", ctypes.c_double))


class c_nvmlGpmMetricsGet_t(ctypes.Structure):  # noqa: N801 - pynvml's name
    _fields_ = (
        ("version", ctypes.c_uint),
        ("numMetrics", ctypes.c_uint),
        ("sample1", ctypes.c_void_p),
        ("sample2", ctypes.c_void_p),
        ("metrics", _GpmMetric * 210),
    )


@dataclass(eq=False)
class FakeGpu:
    """One GPU. `broken` maps names of NVML functions to the error code that they end with."""

    name: str = "NVIDIA H100 80GB HBM3"
    gpm: bool = True
    xid: bool = True
    broken: dict[str, int] = field(default_factory=dict)
    events: deque[int] = field(default_factory=deque)
    corrected: int = 3
    uncorrected: int = 0
    busy: float = 0.0
    """Seconds that its SMs worked, of the fake's clock."""


class FakeNvml:
    """The functions and constants of pynvml that the collector uses, with pynvml's values."""

    NVMLError = NVMLError
    NVML_SUCCESS = 0
    NVML_ERROR_NOT_SUPPORTED = 3
    NVML_ERROR_TIMEOUT = 10
    NVML_ERROR_FUNCTION_NOT_FOUND = 13
    NVML_ERROR_GPU_IS_LOST = 15
    NVML_TEMPERATURE_GPU = 0
    NVML_CLOCK_SM = 1
    NVML_CLOCK_MEM = 2
    NVML_MEMORY_ERROR_TYPE_CORRECTED = 0
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1
    NVML_VOLATILE_ECC = 0
    NVML_GPM_METRICS_GET_VERSION = 1
    NVML_GPM_METRIC_SM_UTIL = 2
    NVML_GPM_METRIC_SM_OCCUPANCY = 3
    NVML_GPM_METRIC_ANY_TENSOR_UTIL = 5
    NVML_GPM_METRIC_DRAM_BW_UTIL = 10
    nvmlEventTypeXidCriticalError = 8  # noqa: N815 - pynvml's name
    c_nvmlGpmMetricsGet_t = c_nvmlGpmMetricsGet_t  # noqa: N815 - pynvml's name

    def __init__(self, *gpus: FakeGpu) -> None:
        self.gpus = list(gpus)
        self.now = 0.0
        self.samples: dict[int, tuple[float, float]] = {}
        """GPM samples that are allocated: when each was taken, and its GPU's busy seconds then."""
        self._next_sample = 1

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if not name.startswith("nvmlDevice") and not name.startswith("nvmlGpm"):
            return value

        def call(*arguments: Any) -> Any:
            for gpu in (a for a in arguments if isinstance(a, FakeGpu)):
                if name in gpu.broken:
                    raise NVMLError(gpu.broken[name])
            return value(*arguments)

        return call

    def nvmlInit(self) -> None: ...  # noqa: N802

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:  # noqa: N802
        gpu = self.gpus[index]
        if "nvmlDeviceGetHandleByIndex" in gpu.broken:
            raise NVMLError(gpu.broken["nvmlDeviceGetHandleByIndex"])
        return gpu

    def nvmlDeviceGetUUID(self, gpu: FakeGpu) -> str:  # noqa: N802
        return f"GPU-{self.gpus.index(gpu)}"

    def nvmlDeviceGetName(self, gpu: FakeGpu) -> bytes:  # noqa: N802
        return gpu.name.encode()

    def nvmlDeviceGetUtilizationRates(self, gpu: FakeGpu) -> Any:  # noqa: N802
        return SimpleNamespace(gpu=87, memory=40)

    def nvmlDeviceGetMemoryInfo(self, gpu: FakeGpu) -> Any:  # noqa: N802
        return SimpleNamespace(used=20 * 2**30, total=80 * 2**30, free=60 * 2**30)

    def nvmlDeviceGetPowerUsage(self, gpu: FakeGpu) -> int:  # noqa: N802
        return 345_600

    def nvmlDeviceGetTemperature(self, gpu: FakeGpu, sensor: int) -> int:  # noqa: N802
        return 61

    def nvmlDeviceGetClockInfo(self, gpu: FakeGpu, clock: int) -> int:  # noqa: N802
        return {self.NVML_CLOCK_SM: 1980, self.NVML_CLOCK_MEM: 2619}[clock]

    def nvmlDeviceGetTotalEccErrors(self, gpu: FakeGpu, error_type: int, counter: int) -> int:  # noqa: N802
        return gpu.uncorrected if error_type else gpu.corrected

    def nvmlGpmQueryDeviceSupport(self, gpu: FakeGpu) -> Any:  # noqa: N802
        return SimpleNamespace(isSupportedDevice=int(gpu.gpm))

    def nvmlGpmSampleAlloc(self) -> int:  # noqa: N802
        self.samples[self._next_sample] = (0.0, 0.0)
        self._next_sample += 1
        return self._next_sample - 1

    def nvmlGpmSampleGet(self, gpu: FakeGpu, sample: int) -> int:  # noqa: N802
        self.samples[sample] = (self.now, gpu.busy)
        return sample

    def nvmlGpmSampleFree(self, sample: int) -> None:  # noqa: N802
        del self.samples[sample]

    def nvmlGpmMetricsGet(self, question: Any) -> Any:  # noqa: N802
        assert question.version == 1
        (before, busy_before), (after, busy_after) = (
            self.samples[question.sample1],
            self.samples[question.sample2],
        )
        percent = 100 * (busy_after - busy_before) / (after - before) if after > before else 0.0
        for slot in range(question.numMetrics):
            metric = question.metrics[slot]
            metric.value = {2: percent, 3: percent / 2, 5: percent / 4}.get(metric.metricId, 0)
            metric.nvmlReturn = 0 if metric.metricId in (2, 3, 5) else self.NVML_ERROR_NOT_SUPPORTED
            question.metrics[slot] = metric
        return question

    def nvmlDeviceGetSupportedEventTypes(self, gpu: FakeGpu) -> int:  # noqa: N802
        return 0b1011 if gpu.xid else 0b0011

    def nvmlEventSetCreate(self) -> list[FakeGpu]:  # noqa: N802
        return []

    def nvmlEventSetFree(self, events: list[FakeGpu]) -> None:  # noqa: N802
        events.clear()

    def nvmlDeviceRegisterEvents(self, gpu: FakeGpu, types: int, events: list[FakeGpu]) -> None:  # noqa: N802
        assert types == self.nvmlEventTypeXidCriticalError
        events.append(gpu)

    def nvmlEventSetWait_v2(self, events: list[FakeGpu], milliseconds: int) -> Any:  # noqa: N802
        assert milliseconds == 0
        for gpu in events:
            if gpu.events:
                return SimpleNamespace(device=gpu, eventType=8, eventData=gpu.events.popleft())
        raise NVMLError(self.NVML_ERROR_TIMEOUT)
