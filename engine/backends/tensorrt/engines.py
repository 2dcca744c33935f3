"""An engine for a key: from the cache where all of it matches, else refitted, else built."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from engine.backends.tensorrt.builder import BuildSettings, build_engine
from engine.backends.tensorrt.cache import MANIFEST, EngineCache, EngineManifest
from engine.backends.tensorrt.driver import Gpu
from engine.backends.tensorrt.errors import EngineRefusedError, EngineStoreError
from engine.backends.tensorrt.graph import UNetGraph
from engine.backends.tensorrt.key import EngineKey
from engine.backends.tensorrt.package import TensorRTPackage
from engine.backends.tensorrt.profiles import Profile
from engine.backends.tensorrt.refit import refit_engine
from engine.backends.tensorrt.runner import create_runtime

log = structlog.get_logger()

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A serialised engine in memory, its profiles, and its file, None where it could not be stored."""

    content: Any
    profiles: tuple[Profile, ...]
    path: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Obtained:
    """The plans of a key. ``manifest`` and ``folder`` are None where the disk did not take them."""

    plans: tuple[Plan, ...]
    manifest: EngineManifest | None
    folder: Path | None
    built: bool


def key_of(
    package: TensorRTPackage,
    gpu: Gpu | None,
    graph: UNetGraph,
    profiles: tuple[Profile, ...],
    settings: BuildSettings,
    *,
    model: str,
) -> EngineKey:
    """Return the key of an engine for this GPU, or for the targets of the settings."""
    ahead = bool(settings.targets)
    assert ahead or gpu is not None, "an engine is for a GPU or for targets"
    return EngineKey(
        backend=package.backend,
        version=package.version,
        gpu=None if ahead or gpu is None else gpu.name,
        compute_capabilities=settings.targets if ahead or gpu is None else (gpu.compute_capability,),
        model=model,
        graph=graph.graph,
        weights=graph.weights,
        dtype=graph.dtype,
        profiles=profiles,
        flags=tuple(settings.flags()),
        level=settings.level,
    )


class Engines:
    """Obtain engines for one package. ``gpu`` is None where engines are built ahead of time."""

    def __init__(
        self,
        package: TensorRTPackage,
        cache: EngineCache,
        *,
        gpu: Gpu | None,
        report: Report,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._package = package
        self._cache = cache
        self._gpu = gpu
        self._report = report
        self._clock = clock

    def obtain(
        self, key: EngineKey, graph: UNetGraph, settings: BuildSettings, *, must_store: bool = False
    ) -> Obtained:
        """Return the plans of a key, building them if there are none; one process in a folder builds at a time.

        A disk that does not take the engine is an error where ``must_store``, else the engine serves from memory and
        the log says why. Raises the ``TensorRTError`` family.
        """
        found = self._find(key)
        if found is not None:
            return found
        try:
            with self._cache.lock(key, waiting=self._wait):
                return self._find(key) or self._make(key, graph, settings, must_store=must_store)
        except EngineStoreError as error:
            if must_store:
                raise
            # From the lock: without ``must_store`` nothing else raises it.
            log.error("engine is not kept", error=str(error))
            return self._make(key, graph, settings, must_store=False, keep=False)

    def _wait(self, holder: str) -> None:
        self._report(f"waiting for {holder}, which builds")

    def _find(self, key: EngineKey) -> Obtained | None:
        for folder in self._cache.candidates(key):
            try:
                manifest = self._cache.manifest(folder)
                reasons = key.differences(manifest.key)
                if not reasons:
                    return self._read(folder, manifest)
            except EngineRefusedError as error:
                reasons = [str(error)]
            self._report(f"{folder}: not used: " + "; ".join(reasons))
        return None

    def _read(self, folder: Path, manifest: EngineManifest) -> Obtained:
        plans = tuple(
            Plan(
                content=self._cache.plan(folder, plan),
                profiles=tuple(manifest.key.profiles[number] for number in plan.profiles),
                path=folder / plan.file,
            )
            for plan in manifest.plans
        )
        return Obtained(plans=plans, manifest=manifest, folder=folder, built=False)

    def _make(
        self,
        key: EngineKey,
        graph: UNetGraph,
        settings: BuildSettings,
        *,
        must_store: bool,
        keep: bool = True,
    ) -> Obtained:
        began = self._clock()
        refitted = self._refit(key, graph)
        if refitted is not None:
            made, timings = refitted, b""
        else:
            made, timings = self._build(key, graph, settings)
        seconds = self._clock() - began
        self._report(
            f"engine ready after {seconds:.1f} s, {sum(memoryview(c).nbytes for c, _ in made)} bytes"
        )
        numbers = {profile: number for number, profile in enumerate(key.profiles)}
        manifest, folder = None, None
        if keep:
            try:
                manifest = self._cache.store(
                    key,
                    [
                        (tuple(numbers[profile] for profile in profiles), content)
                        for content, profiles in made
                    ],
                    timings=timings,
                    refittable=settings.refit,
                    seconds=seconds,
                )
                folder = self._cache.folder(key)
            except EngineStoreError as error:
                if must_store:
                    raise
                log.error("engine is not kept, the next start builds it again", error=str(error))
        paths = (
            [None] * len(made)
            if manifest is None or folder is None
            else [folder / p.file for p in manifest.plans]
        )
        plans = tuple(
            Plan(content=content, profiles=profiles, path=path)
            for (content, profiles), path in zip(made, paths, strict=True)
        )
        return Obtained(plans=plans, manifest=manifest, folder=folder, built=True)

    def _build(
        self, key: EngineKey, graph: UNetGraph, settings: BuildSettings
    ) -> tuple[list[tuple[Any, tuple[Profile, ...]]], bytes]:
        timings = self._cache.timings(key)
        made = []
        for profiles in settings.groups(key.profiles):
            buckets = ",".join(str(profile.rows) for profile in profiles)
            self._report(f"building for bucket {buckets}")
            built = build_engine(
                self._package, graph.path, profiles, settings, timing_cache=timings, report=self._report
            )
            timings = built.timing_cache or timings
            made.append((built.plan, profiles))
        return made, timings

    def _refit(self, key: EngineKey, graph: UNetGraph) -> list[tuple[Any, tuple[Profile, ...]]] | None:
        """Return the engine that is there with this graph's weights, if only those differ and it can be refitted."""
        folder = self._cache.root / key.place
        if not (folder / MANIFEST).exists():
            return None
        try:
            manifest = self._cache.manifest(folder)
            same_but_weights = not key.differences(replace(manifest.key, weights=key.weights))
            if self._gpu is None or not manifest.refittable or key.weights is None or not same_but_weights:
                return None
            self._report("only weights differ: refitting")
            runtime, logger = create_runtime(self._package, self._gpu)
            made = []
            for plan in self._read(folder, manifest).plans:
                engine = runtime.deserialize_cuda_engine(plan.content)
                if engine is None:
                    raise EngineRefusedError(
                        "cannot be loaded", path=plan.path, found="; ".join(logger.errors)
                    )
                made.append((refit_engine(self._package, engine, graph.path, logger), plan.profiles))
        except EngineRefusedError as error:
            self._report(f"not refitted: {error}")
            return None
        return made
