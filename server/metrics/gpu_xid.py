"""Xid errors: the driver's reports of faults, which NVML queues as events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from server.metrics.gpu_device import Device, Reading

_MOST_EVENTS = 1000
"""Events that one scrape takes, in case that they come faster than it can."""


class XidListener:
    """Counts a device's Xid errors from its own creation on; silent where the device does not report them."""

    def __init__(self, nvml: Any, device: Device) -> None:
        self._nvml = nvml
        self._gpu = device.gpu
        self._count = 0
        self._last: int | None = None
        self._events = _listen(nvml, device)

    def readings(self) -> Iterator[Reading]:
        """Take the queued events, then yield the count and, after a first one, the latest code."""
        if self._events is None:
            return
        for _ in range(_MOST_EVENTS):
            try:
                event = self._nvml.nvmlEventSetWait_v2(self._events, 0)
            except self._nvml.NVMLError:
                break  # NVML_ERROR_TIMEOUT: none is left. Any other: the next scrape tries again.
            if event.eventType == self._nvml.nvmlEventTypeXidCriticalError:
                self._count += 1
                self._last = int(event.eventData)
        yield Reading(series="limner_gpu_xid_errors_total", labels=(self._gpu,), value=self._count)
        if self._last is not None:
            yield Reading(series="limner_gpu_xid_last_code", labels=(self._gpu,), value=self._last)


def _listen(nvml: Any, device: Device) -> Any:
    """Return a set of events that the device's Xid errors arrive in, or None where it has none."""
    xid = nvml.nvmlEventTypeXidCriticalError
    offered = device.ask("nvmlDeviceGetSupportedEventTypes", device.handle)
    if offered is None or not offered & xid:
        return None
    events = device.ask("nvmlEventSetCreate")
    if events is None:
        return None
    try:
        nvml.nvmlDeviceRegisterEvents(device.handle, xid, events)
    except nvml.NVMLError:
        device.ask("nvmlEventSetFree", events)
        return None
    return events
