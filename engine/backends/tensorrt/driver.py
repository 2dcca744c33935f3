"""The NVIDIA driver, asked directly: TensorRT's runtime crashes the process where there is none."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.backends.tensorrt.errors import DriverMissingError

# cuda.h, CUdevice_attribute.
_MAJOR, _MINOR = 75, 76
LIBRARY = "libcuda.so.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU as the driver names it. ``driver`` is the newest CUDA version that the driver runs, such as 13.0."""

    name: str
    compute_capability: str
    driver: str


def find_gpu(index: int = 0, *, load: Callable[[str], Any] = ctypes.CDLL) -> Gpu:
    """Return a GPU, by its number among the visible ones. Raises ``DriverMissingError`` that says what is missing.

    Source: CUDA driver API, ``cuInit``, ``cuDeviceGet``, ``cuDeviceGetName``, ``cuDeviceGetAttribute``.
    """
    try:
        driver = load(LIBRARY)
    except OSError as error:
        raise DriverMissingError("no NVIDIA driver", expected=LIBRARY, found=str(error)) from error
    _check(driver.cuInit(0), "cuInit")
    count, device, version = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    _check(driver.cuDeviceGetCount(ctypes.byref(count)), "cuDeviceGetCount")
    if index >= count.value:
        raise DriverMissingError(
            "no such GPU", expected=f"GPU {index}", found=f"{count.value} visible to the driver"
        )
    _check(driver.cuDeviceGet(ctypes.byref(device), index), "cuDeviceGet")
    name = ctypes.create_string_buffer(256)
    _check(driver.cuDeviceGetName(name, len(name), device), "cuDeviceGetName")
    numbers = []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int()
        _check(driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device), "cuDeviceGetAttribute")
        numbers.append(str(value.value))
    _check(driver.cuDriverGetVersion(ctypes.byref(version)), "cuDriverGetVersion")
    return Gpu(
        name=name.value.decode(),
        compute_capability=".".join(numbers),
        driver=f"{version.value // 1000}.{version.value % 1000 // 10}",
    )


def _check(status: int, call: str) -> None:
    if status != 0:
        raise DriverMissingError(f"the NVIDIA driver answers {call} with error {status}", expected="0")
