"""From an ONNX file to a serialised engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from engine.backends.tensorrt.errors import BuildFailedError, GraphRefusedError
from engine.backends.tensorrt.package import TensorRTPackage
from engine.backends.tensorrt.profiles import Profile, check_inputs

log = structlog.get_logger()

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSettings:
    """What may be chosen about a build.

    refit: weights can be replaced later without another build; needs the GPU at build time.
    distributive_independence: rows do not influence one another's bits; TensorRT then takes one profile an engine.
    tf32: float32 graphs may multiply with ten bits of mantissa; off, since pictures would leave diffusers'.
    level: TensorRT's ``builder_optimization_level``, 0 to 5; None leaves it to TensorRT.
    targets: compute capabilities such as ``8.6`` to build for without that GPU; none builds for the GPU at hand.
    """

    refit: bool = False
    distributive_independence: bool = False
    tf32: bool = False
    level: int | None = None
    targets: tuple[str, ...] = ()

    def flags(self) -> list[str]:
        """Return the names of the ``BuilderFlag`` members to set."""
        names = {
            "REFIT": self.refit,
            "DISTRIBUTIVE_INDEPENDENCE": self.distributive_independence,
            "TF32": self.tf32,
        }
        return [name for name, wanted in names.items() if wanted]

    def groups(self, profiles: Sequence[Profile]) -> list[tuple[Profile, ...]]:
        """Return which profiles share an engine."""
        return [(one,) for one in profiles] if self.distributive_independence else [tuple(profiles)]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltEngine:
    """A serialised engine, as a buffer, and the timing cache after the build (empty where there is none)."""

    plan: Any
    timing_cache: bytes
    seconds: float


def build_engine(
    package: TensorRTPackage,
    onnx: Path,
    profiles: Sequence[Profile],
    settings: BuildSettings,
    *,
    timing_cache: bytes = b"",
    report: Report | None = None,
) -> BuiltEngine:
    """Build one strongly typed engine with these profiles, in the types that the graph states.

    Raises ``GraphRefusedError`` and ``BuildFailedError``, with what TensorRT said.
    """
    trt, logger, began = package.module, package.logger(), time.monotonic()
    builder = trt.Builder(logger)
    strongly_typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(strongly_typed)
    parser = trt.OnnxParser(network, logger)
    # By path, so that weights in external files are found.
    if not parser.parse_from_file(str(onnx)):
        reasons = "; ".join(str(parser.get_error(index).desc()) for index in range(parser.num_errors))
        raise GraphRefusedError("TensorRT's parser refuses the graph", path=onnx, found=reasons or None)
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    check_inputs([tensor.name for tensor in inputs])
    config = builder.create_builder_config()
    _set_flags(package, config, settings)
    _set_targets(package, config, settings)
    if settings.level is not None:
        config.builder_optimization_level = settings.level
    for wanted in profiles:
        profile = builder.create_optimization_profile()
        for tensor in inputs:
            shape = wanted.shape(tensor.name, tuple(tensor.shape))
            profile.set_shape(tensor.name, shape, shape, shape)
        if config.add_optimization_profile(profile) < 0:
            raise BuildFailedError(f"TensorRT refuses the profile {wanted.record()}", path=onnx)
    # TensorRT-RTX has the calls but times nothing while it builds.
    cache = _attach_timing_cache(config, timing_cache) if package.backend == "tensorrt" else None
    monitor = _monitor(trt, report) if report is not None else None
    if monitor is not None:
        config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildFailedError(
            "TensorRT built no engine",
            path=onnx,
            found="; ".join(logger.errors) or "no message from TensorRT",
        )
    timings = b"" if cache is None else bytes(memoryview(config.get_timing_cache().serialize()))
    return BuiltEngine(plan=plan, timing_cache=timings, seconds=time.monotonic() - began)


def _set_flags(package: TensorRTPackage, config: Any, settings: BuildSettings) -> None:
    known = package.module.BuilderFlag.__members__
    # On by default.
    config.clear_flag(known["TF32"])
    for name in settings.flags():
        if name not in known:
            raise BuildFailedError(
                f"{package.backend} {package.version} has no builder flag {name}", found=", ".join(known)
            )
        config.set_flag(known[name])


def _set_targets(package: TensorRTPackage, config: Any, settings: BuildSettings) -> None:
    if not settings.targets:
        return
    if not package.ahead_of_time:
        raise BuildFailedError(
            f"{package.backend} builds for the GPU at hand alone",
            found=f"targets {', '.join(settings.targets)}",
        )
    known = package.module.ComputeCapability.__members__
    config.num_compute_capabilities = len(settings.targets)
    for index, target in enumerate(settings.targets):
        member = "SM" + target.replace(".", "")
        if member not in known:
            offered = ", ".join(f"{name[2:-1]}.{name[-1]}" for name in known if name.startswith("SM"))
            raise BuildFailedError("no such compute capability", expected=offered, found=target)
        if not config.set_compute_capability(known[member], index):
            raise BuildFailedError(f"{package.backend} does not build for compute capability {target}")


def _attach_timing_cache(config: Any, content: bytes) -> Any:
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):
        log.warning("timing cache of another GPU or version is left aside", bytes=len(content))
        cache = config.create_timing_cache(b"")
        if cache is None or not config.set_timing_cache(cache, False):
            return None
    return cache


def _monitor(trt: Any, report: Report) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Reports the two outer levels of phases, and how far the outermost is; those below come by the thousand."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._depth: dict[str, int] = {}
            self._steps: dict[str, int] = {}
            self._told: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            depth = 0 if parent is None else self._depth.get(parent, 0) + 1
            self._depth[phase], self._steps[phase], self._told[phase] = depth, max(1, steps), 0
            if depth < 2:
                report(phase)

        def phase_finish(self, phase: str) -> None:
            pass

        def step_complete(self, phase: str, step: int) -> bool:
            tenths = 10 * step // self._steps.get(phase, 1)
            if self._depth.get(phase) == 0 and tenths > self._told.get(phase, 0):
                self._told[phase] = tenths
                report(f"{phase}: {10 * tenths} %")
            return True

    return Monitor()
