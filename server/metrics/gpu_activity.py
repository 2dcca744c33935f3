"""What a GPU's SMs did between two scrapes, through NVML's GPU performance monitoring (GPM; Hopper and
newer).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from server.metrics.gpu_device import Device, Reading

_MIN_SECONDS = 0.1
"""Scrapes that follow more closely share an answer: over less time the shares say little."""

_METRICS = {
    "limner_gpu_sm_activity_ratio": "NVML_GPM_METRIC_SM_UTIL",
    "limner_gpu_sm_occupancy_ratio": "NVML_GPM_METRIC_SM_OCCUPANCY",
    "limner_gpu_tensor_activity_ratio": "NVML_GPM_METRIC_ANY_TENSOR_UTIL",
    "limner_gpu_memory_bandwidth_ratio": "NVML_GPM_METRIC_DRAM_BW_UTIL",
}
"""All in percent."""


class ActivitySampler:
    """Keeps one GPM sample of a device from scrape to scrape, and gives what happened since.

    The first sample is taken here, so that the first scrape has something to compare with.
    """

    def __init__(self, nvml: Any, device: Device, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._nvml = nvml
        self._device = device
        self._clock = clock
        self._last: tuple[Any, float] | None = None
        self._readings: list[Reading] = []
        """Those of the latest interval, given again to a scrape that follows too closely."""
        support = device.ask("nvmlGpmQueryDeviceSupport", device.handle)
        self._supported = bool(support is not None and support.isSupportedDevice)
        if self._supported:
            self._last = self._sample()

    def readings(self) -> Iterator[Reading]:
        """Yield the activity since the last call; nothing without GPM or when an interval failed."""
        if not self._supported:
            return
        if self._last is None or self._clock() - self._last[1] >= _MIN_SECONDS:
            before, self._last = self._last, self._sample()
            self._readings = []
            if before is not None and self._last is not None:
                self._readings = self._compare(before[0], self._last[0])
            if before is not None:
                self._device.ask("nvmlGpmSampleFree", before[0])
        yield from self._readings

    def _sample(self) -> tuple[Any, float] | None:
        """Return a new sample with its time, or None."""
        sample = self._device.ask("nvmlGpmSampleAlloc")
        if sample is None:
            return None
        if self._device.ask("nvmlGpmSampleGet", self._device.handle, sample) is None:
            self._device.ask("nvmlGpmSampleFree", sample)
            return None
        return sample, self._clock()

    def _compare(self, before: Any, after: Any) -> list[Reading]:
        nvml = self._nvml
        question = nvml.c_nvmlGpmMetricsGet_t()
        question.version = nvml.NVML_GPM_METRICS_GET_VERSION
        question.numMetrics = len(_METRICS)
        question.sample1, question.sample2 = before, after
        for slot, metric in enumerate(_METRICS.values()):
            question.metrics[slot].metricId = getattr(nvml, metric)
        answer = self._device.ask("nvmlGpmMetricsGet", question)
        if answer is None:
            return []
        return [
            Reading(series=series, labels=(self._device.gpu,), value=answer.metrics[slot].value / 100)
            for slot, series in enumerate(_METRICS)
            # Each metric has a return code of its own: a device may offer some only.
            if answer.metrics[slot].nvmlReturn == nvml.NVML_SUCCESS
        ]
