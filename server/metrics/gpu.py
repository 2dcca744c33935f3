"""Per-GPU series through NVML, read at each scrape.

What a device does not offer is absent, never zero. ``limner_gpu_utilization_ratio`` is the share of the last
second or so in which any kernel ran, and saturates; beside it, where the device has GPM, stands what its SMs
did.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from threading import Lock
from typing import Any

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from server.metrics.gpu_activity import ActivitySampler
from server.metrics.gpu_device import Device, Reading
from server.metrics.gpu_xid import XidListener

_SINCE = "since the last scrape (GPM)"
_GAUGES = {
    "limner_gpu_info": ("A GPU that the driver shows; always 1.", "uuid", "name"),
    "limner_gpu_utilization_ratio": ("Share of the last second or so in which any kernel ran.",),
    "limner_gpu_memory_used_bytes": ("Memory in use, by all processes.",),
    "limner_gpu_memory_total_bytes": ("Memory of the device.",),
    "limner_gpu_power_watts": ("Power draw.",),
    "limner_gpu_temperature_celsius": ("Temperature of the chip.",),
    "limner_gpu_clock_hertz": ("Current clock of the SMs and of the memory.", "domain"),
    "limner_gpu_xid_last_code": ("Code of the latest Xid error.",),
    "limner_gpu_sm_activity_ratio": (f"Share of time, over SMs, with a warp at least, {_SINCE}.",),
    "limner_gpu_sm_occupancy_ratio": (f"Resident warps of those that the SMs can hold, {_SINCE}.",),
    "limner_gpu_tensor_activity_ratio": (f"Share of time in which tensor cores worked, {_SINCE}.",),
    "limner_gpu_memory_bandwidth_ratio": (f"Share of the memory's bandwidth in use, {_SINCE}.",),
}
_COUNTERS = {
    "limner_gpu_ecc_errors_total": ("Memory errors since the driver was loaded.", "kind"),
    "limner_gpu_xid_errors_total": ("Xid errors since the server started.",),
}
"""Help text and labels, beside ``gpu``, of each series."""


def register_gpus(registry: CollectorRegistry, nvml: Any = None) -> None:
    """Add the GPUs' series to ``registry``; without a GPU or a driver add none, and log that once.

    ``nvml`` is a module shaped like ``pynvml``; None imports that one.
    """
    log = structlog.get_logger(__name__)
    try:
        nvml = nvml if nvml is not None else import_module("pynvml")
        nvml.nvmlInit()
        count = nvml.nvmlDeviceGetCount()
    except Exception as error:  # No driver, no library, no permission: no GPU series, whatever the reason.
        log.info("gpu_metrics_absent", reason=str(error) or type(error).__name__)
        return
    if count == 0:
        log.info("gpu_metrics_absent", reason="the driver shows no GPU")
        return
    registry.register(GpuCollector(nvml, count))
    log.info("gpu_metrics_present", gpus=count)


class GpuCollector(Collector):
    """Reads every GPU at each scrape. Scrapes come from the endpoint's threads, one at a time here."""

    def __init__(self, nvml: Any, count: int) -> None:
        self._lock = Lock()
        self._devices = [Device(nvml, index) for index in range(count)]
        present = [device for device in self._devices if device.handle is not None]
        self._activity = [ActivitySampler(nvml, device) for device in present]
        self._xid = [XidListener(nvml, device) for device in present]

    def describe(self) -> Iterator[Metric]:
        """Yield the series that may appear, without samples."""
        return iter(_families().values())

    def collect(self) -> Iterator[Metric]:
        """Yield the series that the devices offer now."""
        families = _families()
        with self._lock:
            for reading in self._readings():
                families[reading.series].add_metric(reading.labels, reading.value)
        return iter([family for family in families.values() if family.samples])

    def _readings(self) -> Iterator[Reading]:
        for device in self._devices:
            yield from device.readings()
        for sampler in self._activity:
            yield from sampler.readings()
        for listener in self._xid:
            yield from listener.readings()


def _families() -> dict[str, GaugeMetricFamily | CounterMetricFamily]:
    families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
    for name, (what, *labels) in _GAUGES.items():
        families[name] = GaugeMetricFamily(name, what, labels=("gpu", *labels))
    for name, (what, *labels) in _COUNTERS.items():
        families[name] = CounterMetricFamily(name, what, labels=("gpu", *labels))
    return families
