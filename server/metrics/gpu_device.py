"""What NVML tells of one GPU at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import structlog


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One sample of a series; the first label is always the GPU's index."""

    series: str
    labels: tuple[str, ...]
    value: float


class Device:
    """One GPU. ``handle`` is NVML's, or None where the GPU cannot be opened."""

    def __init__(self, nvml: Any, index: int) -> None:
        self._nvml = nvml
        self._complained: set[str] = set()
        self.gpu = str(index)
        self.handle = self.ask("nvmlDeviceGetHandleByIndex", index)

    def ask(self, function: str, *arguments: Any) -> Any:
        """Return what NVML's ``function`` answers, or None.

        In silence where the device, the driver or pynvml does not offer it, else with one log line ever.
        """
        nvml = self._nvml
        try:
            return getattr(nvml, function)(*arguments)
        except AttributeError:
            return None
        except Exception as error:
            # NVMLError, and whatever else the bindings may raise: no GPU's oddity takes the whole page down.
            code = getattr(error, "value", None)
            absent = code in (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND)
            if not absent and function not in self._complained:
                self._complained.add(function)
                log = structlog.get_logger(__name__)
                log.warning("gpu_reading_failed", gpu=self.gpu, function=function, error=str(error))
            return None

    def readings(self) -> Iterator[Reading]:
        """Yield what the device offers now."""
        if self.handle is None:
            return
        nvml, handle = self._nvml, self.handle
        uuid, name = self.ask("nvmlDeviceGetUUID", handle), self.ask("nvmlDeviceGetName", handle)
        if uuid is not None and name is not None:
            yield self._reading("limner_gpu_info", 1, _text(uuid), _text(name))
        if (rates := self.ask("nvmlDeviceGetUtilizationRates", handle)) is not None:
            yield self._reading("limner_gpu_utilization_ratio", rates.gpu / 100)
        if (memory := self.ask("nvmlDeviceGetMemoryInfo", handle)) is not None:
            yield self._reading("limner_gpu_memory_used_bytes", memory.used)
            yield self._reading("limner_gpu_memory_total_bytes", memory.total)
        if (milliwatts := self.ask("nvmlDeviceGetPowerUsage", handle)) is not None:
            yield self._reading("limner_gpu_power_watts", milliwatts / 1000)
        if (celsius := self.ask("nvmlDeviceGetTemperature", handle, nvml.NVML_TEMPERATURE_GPU)) is not None:
            yield self._reading("limner_gpu_temperature_celsius", celsius)
        for domain, clock in (("sm", nvml.NVML_CLOCK_SM), ("memory", nvml.NVML_CLOCK_MEM)):
            if (megahertz := self.ask("nvmlDeviceGetClockInfo", handle, clock)) is not None:
                yield self._reading("limner_gpu_clock_hertz", megahertz * 1e6, domain)
        for kind, error_type in (
            ("corrected", nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED),
            ("uncorrected", nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
        ):
            errors = self.ask("nvmlDeviceGetTotalEccErrors", handle, error_type, nvml.NVML_VOLATILE_ECC)
            if errors is not None:
                yield self._reading("limner_gpu_ecc_errors_total", errors, kind)

    def _reading(self, series: str, value: float, *labels: str) -> Reading:
        return Reading(series=series, labels=(self.gpu, *labels), value=value)


def _text(value: str | bytes) -> str:
    """Return NVML's text, which old releases of pynvml give as bytes."""
    return value.decode() if isinstance(value, bytes) else value
