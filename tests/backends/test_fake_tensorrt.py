"""The fake TensorRT is the real one: every name, argument and member that our code uses, where the package is there."""

from __future__ import annotations

import enum
import inspect
import re
from typing import Any

import pytest

from tests.backends import fake_tensorrt as fake
from tests.backends.real_tensorrt import real_tensorrt

real = real_tensorrt()

CLASSES = (
    fake.Builder,
    fake.IBuilderConfig,
    fake.ICudaEngine,
    fake.IExecutionContext,
    fake.ILogger,
    fake.INetworkDefinition,
    fake.IOptimizationProfile,
    fake.IProgressMonitor,
    fake.IRuntimeConfig,
    fake.ITensor,
    fake.ITimingCache,
    fake.OnnxParser,
    fake.OnnxParserRefitter,
    fake.ParserError,
    fake.Refitter,
    fake.Runtime,
)
ENUMS = (
    fake.DataType,
    fake.TensorIOMode,
    fake.BuilderFlag,
    fake.NetworkDefinitionCreationFlag,
    fake.ExecutionContextAllocationStrategy,
    fake.DynamicShapesKernelSpecializationStrategy,
    fake.ComputeCapability,
    fake.Severity,
)
ATTRIBUTES = {
    "IBuilderConfig": ("builder_optimization_level", "num_compute_capabilities", "progress_monitor"),
    "ITensor": ("name", "dtype", "shape"),
    "IRuntimeConfig": ("dynamic_shapes_kernel_specialization_strategy",),
}
"""What the fakes set in __init__ and the real classes have as properties."""


def overloads(method: Any) -> list[list[str]]:
    """Return the argument names of each overload, as pybind11 documents them, without self."""
    found = []
    for arguments in re.findall(
        rf"^(?:\d+\. )?{method.__name__}\((self: .*)\) ->", method.__doc__, re.MULTILINE
    ):
        # Names stand before a colon at the depth of the list itself.
        depth, flat = 0, ""
        for character in arguments:
            depth += (character in "[(<{") - (character in "])>}")
            flat += character if depth == 0 else ""
        found.append([part.split(":")[0].strip() for part in flat.split(", ")][1:])
    return found


def methods(kind: type) -> list[tuple[str, Any]]:
    return [
        (name, value)
        for name, value in vars(kind).items()
        if not name.startswith("_") and inspect.isfunction(value)
    ]


CALLS = [(kind, name) for kind in CLASSES for name, _ in methods(kind)]


@pytest.mark.parametrize(("kind", "name"), CALLS, ids=[f"{kind.__name__}.{name}" for kind, name in CALLS])
def test_a_call_has_the_real_ones_arguments(kind: type, name: str) -> None:
    theirs = getattr(getattr(real, kind.__name__), name)
    ours = [argument for argument in inspect.signature(getattr(kind, name)).parameters if argument != "self"]
    assert ours in overloads(theirs), theirs.__doc__


def test_properties_are_properties() -> None:
    for kind in CLASSES:
        names = [name for name, value in vars(kind).items() if isinstance(value, property)]
        for name in (*names, *ATTRIBUTES.get(kind.__name__, ())):
            assert isinstance(getattr(getattr(real, kind.__name__), name), property), (kind, name)


def test_constructors_take_what_the_real_ones_take() -> None:
    for name in ("Builder", "OnnxParser", "Runtime", "Refitter", "OnnxParserRefitter"):
        ours = [p for p in inspect.signature(getattr(fake.FakeTensorRT, name)).parameters if p != "self"]
        assert ours in overloads(getattr(real, name).__init__), name


@pytest.mark.parametrize("kind", ENUMS, ids=lambda kind: kind.__name__)
def test_members_are_the_real_ones(kind: type[enum.IntEnum]) -> None:
    theirs = real.ILogger.Severity if kind is fake.Severity else getattr(real, kind.__name__)
    for member in kind:
        assert member.name in theirs.__members__
