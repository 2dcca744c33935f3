"""GPU series, with a fake NVML from init to scrape."""

from __future__ import annotations

from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry

from server.metrics.gpu import register_gpus
from server.metrics.gpu_activity import ActivitySampler
from server.metrics.gpu_device import Device
from tests.server.metrics.fake_nvml import FakeGpu, FakeNvml, NVMLError

FakeNvmlError = NVMLError


def series(registry: CollectorRegistry) -> dict[str, float]:
    """Samples by `name{label values}`."""
    return {
        f"{sample.name}{{{','.join(sample.labels.values())}}}": sample.value
        for family in registry.collect()
        for sample in family.samples
    }


def registered(nvml: Any) -> CollectorRegistry:
    registry = CollectorRegistry()
    register_gpus(registry, nvml)
    return registry


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The samplers' clock, by hand."""
    now = [100.0]
    original = ActivitySampler.__init__

    def init(self: ActivitySampler, nvml: Any, device: Device) -> None:
        original(self, nvml, device, clock=lambda: now[0])

    monkeypatch.setattr(ActivitySampler, "__init__", init)
    return now


def test_everything_that_a_hopper_offers(clock: list[float]) -> None:
    gpu = FakeGpu()
    nvml = FakeNvml(gpu)
    registry = registered(nvml)
    clock[0], nvml.now, gpu.busy = 110.0, 10.0, 6.0
    gpu.events.extend([79, 31])
    assert series(registry) == pytest.approx(
        {
            "limner_gpu_info{0,GPU-0,NVIDIA H100 80GB HBM3}": 1,
            "limner_gpu_utilization_ratio{0}": 0.87,
            "limner_gpu_memory_used_bytes{0}": 20 * 2**30,
            "limner_gpu_memory_total_bytes{0}": 80 * 2**30,
            "limner_gpu_power_watts{0}": 345.6,
            "limner_gpu_temperature_celsius{0}": 61,
            "limner_gpu_clock_hertz{0,sm}": 1.98e9,
            "limner_gpu_clock_hertz{0,memory}": 2.619e9,
            "limner_gpu_ecc_errors_total{0,corrected}": 3,
            "limner_gpu_ecc_errors_total{0,uncorrected}": 0,
            "limner_gpu_xid_errors_total{0}": 2,
            "limner_gpu_xid_last_code{0}": 31,
            "limner_gpu_sm_activity_ratio{0}": 0.6,
            "limner_gpu_sm_occupancy_ratio{0}": 0.3,
            "limner_gpu_tensor_activity_ratio{0}": 0.15,
            # The fake offers no memory bandwidth: absent, not zero.
        }
    )


def test_activity_is_of_the_time_since_the_last_scrape(clock: list[float]) -> None:
    gpu = FakeGpu()
    nvml = FakeNvml(gpu)
    registry = registered(nvml)
    name = "limner_gpu_sm_activity_ratio{0}"
    assert name not in series(registry), "no time has passed since the first sample"
    clock[0], nvml.now, gpu.busy = 110.0, 10.0, 10.0
    assert series(registry)[name] == 1
    clock[0], nvml.now = 120.0, 20.0
    assert series(registry)[name] == 0
    clock[0] += 0.05
    assert series(registry)[name] == 0, "a scrape that follows closely is given the same answer"
    for step in range(50):
        clock[0] += 1
        nvml.now += 1
        gpu.busy += step / 100
        assert series(registry)[name] == pytest.approx(step / 100)
    assert len(nvml.samples) == 1, "samples are freed"


def test_what_a_device_does_not_offer_is_absent_and_says_nothing(clock: list[float]) -> None:
    absent = {
        "nvmlDeviceGetPowerUsage": 3,
        "nvmlDeviceGetTotalEccErrors": 3,
        "nvmlDeviceGetTemperature": 3,
        "nvmlDeviceGetClockInfo": 13,
        "nvmlDeviceGetMemoryInfo": 3,
    }
    registry = registered(FakeNvml(FakeGpu(gpm=False, xid=False, broken=absent)))
    clock[0] += 10
    with structlog.testing.capture_logs() as logs:
        assert series(registry) == {
            "limner_gpu_info{0,GPU-0,NVIDIA H100 80GB HBM3}": 1,
            "limner_gpu_utilization_ratio{0}": 0.87,
        }
    assert logs == []


def test_an_old_pynvml_or_driver_has_no_gpm(clock: list[float]) -> None:
    class Old(FakeNvml):
        @property
        def nvmlGpmQueryDeviceSupport(self) -> Any:  # noqa: N802
            raise AttributeError("nvmlGpmQueryDeviceSupport")

    registry = registered(Old(FakeGpu()))
    clock[0] += 10
    found = series(registry)
    assert "limner_gpu_power_watts{0}" in found
    assert not any("activity" in name for name in found)


def test_errors_mid_scrape_take_their_series_alone_and_complain_once(clock: list[float]) -> None:
    sick, well = FakeGpu(), FakeGpu()
    nvml = FakeNvml(sick, well)
    registry = registered(nvml)
    clock[0], nvml.now = 110.0, 10.0
    whole = series(registry)
    for function in ("nvmlDeviceGetPowerUsage", "nvmlGpmSampleGet", "nvmlDeviceGetUtilizationRates"):
        sick.broken[function] = FakeNvml.NVML_ERROR_GPU_IS_LOST
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            clock[0], nvml.now = clock[0] + 10, nvml.now + 10
            found = series(registry)
    gone = {name for name in whole if name not in found}
    assert gone == {
        "limner_gpu_power_watts{0}",
        "limner_gpu_utilization_ratio{0}",
        "limner_gpu_sm_activity_ratio{0}",
        "limner_gpu_sm_occupancy_ratio{0}",
        "limner_gpu_tensor_activity_ratio{0}",
    }
    assert sorted((log["gpu"], log["function"]) for log in logs) == [
        ("0", "nvmlDeviceGetPowerUsage"),
        ("0", "nvmlDeviceGetUtilizationRates"),
        ("0", "nvmlGpmSampleGet"),
    ]
    sick.broken.clear()
    for _ in range(2):
        clock[0], nvml.now = clock[0] + 10, nvml.now + 10
        found = series(registry)
    assert found.keys() == whole.keys(), "what mends itself comes back"
    assert len(nvml.samples) == 2


def test_bindings_that_break_do_not_take_the_page_down(clock: list[float]) -> None:
    class Broken(FakeNvml):
        def nvmlDeviceGetMemoryInfo(self, gpu: FakeGpu) -> Any:  # noqa: N802
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "what the driver said")

    found = series(registered(Broken(FakeGpu())))
    assert "limner_gpu_memory_used_bytes{0}" not in found
    assert "limner_gpu_power_watts{0}" in found


def test_a_gpu_that_cannot_be_opened_leaves_the_others(clock: list[float]) -> None:
    nvml = FakeNvml(FakeGpu(broken={"nvmlDeviceGetHandleByIndex": 15}), FakeGpu())
    found = series(registered(nvml))
    assert "limner_gpu_power_watts{1}" in found
    assert not any("{0" in name for name in found)


def test_xid_counts_begin_at_zero(clock: list[float]) -> None:
    gpu = FakeGpu()
    registry = registered(FakeNvml(gpu))
    found = series(registry)
    assert found["limner_gpu_xid_errors_total{0}"] == 0
    assert "limner_gpu_xid_last_code{0}" not in found
    gpu.events.append(48)
    series(registry)
    found = series(registry)
    assert found["limner_gpu_xid_errors_total{0}"] == 1
    assert found["limner_gpu_xid_last_code{0}"] == 48


def test_events_that_cannot_be_registered_are_absent(clock: list[float]) -> None:
    registry = registered(FakeNvml(FakeGpu(broken={"nvmlDeviceRegisterEvents": 3})))
    assert not any("xid" in name for name in series(registry))


class NoDriver(FakeNvml):
    def nvmlInit(self) -> None:  # noqa: N802
        raise NVMLError(9)


class NoLibrary(FakeNvml):
    def nvmlInit(self) -> None:  # noqa: N802
        raise OSError("libnvidia-ml.so.1: cannot open shared object file")


@pytest.mark.parametrize("nvml", [NoDriver(), NoLibrary(), FakeNvml()])
def test_without_a_gpu_there_are_no_series_and_one_line(nvml: FakeNvml) -> None:
    with structlog.testing.capture_logs() as logs:
        registry = registered(nvml)
        assert series(registry) == {}
        assert series(registry) == {}
    assert [log["event"] for log in logs] == ["gpu_metrics_absent"]
    assert logs[0]["reason"]


def test_the_real_library_registers_or_says_why() -> None:
    with structlog.testing.capture_logs() as logs:
        registry = registered(None)
        series(registry)
    assert logs[0]["event"] in ("gpu_metrics_absent", "gpu_metrics_present")


def test_the_fake_is_shaped_like_the_real_one() -> None:
    pynvml = pytest.importorskip("pynvml")
    for name in dir(FakeNvml):
        if name.lower().startswith(("nvml", "c_nvml")):
            real = getattr(pynvml, name)
            if isinstance(real, int):
                assert getattr(FakeNvml, name) == real, name
    assert [name for name, _ in pynvml.c_nvmlGpmMetricsGet_t._fields_] == [
        name for name, _ in FakeNvml.c_nvmlGpmMetricsGet_t._fields_
    ]
