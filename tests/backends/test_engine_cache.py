"""The engine cache: reused only when all of it matches, and nothing half-written is ever loaded."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from engine.backends.tensorrt.backend import TensorRTSettings
from engine.backends.tensorrt.builder import BuildSettings
from engine.backends.tensorrt.cache import LOCK, MANIFEST, EngineCache
from engine.backends.tensorrt.driver import Gpu
from engine.backends.tensorrt.engines import Engines, Obtained, key_of
from engine.backends.tensorrt.errors import EngineRefusedError, EngineStoreError
from engine.backends.tensorrt.graph import UNetGraph
from engine.backends.tensorrt.key import EngineKey
from engine.backends.tensorrt.package import TensorRTPackage
from engine.backends.tensorrt.profiles import profiles_of
from engine.models.model import Model, load_model
from tests.backends.fake_tensorrt import DataType, FakeTensorRT, ITensor
from tests.backends.tensorrt_bench import GPU, fake_package, trt, write_graph
from tests.tinymodels import build_tiny_model

OTHER_GPU = Gpu(name="NVIDIA L4", compute_capability="8.9", driver="13.0")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(build_tiny_model(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def graph(tmp_path: Path) -> UNetGraph:
    return write_graph(tmp_path / "export")


class Site:
    """A machine with a cache; ``obtain`` says what it had to do, ``lines`` what it told."""

    def __init__(self, root: Path, model: Model, *, backend: str = "tensorrt", gpu: Gpu | None = GPU) -> None:
        self.root = root
        self.model = model
        self.gpu = gpu
        self.package: TensorRTPackage = fake_package(model, backend=backend)
        self.lines: list[str] = []
        self.write: Callable[[Path, Any], None] | None = None

    def obtain(
        self,
        graph: UNetGraph,
        buckets: tuple[int, ...] = (1, 2),
        build: BuildSettings | None = None,
        *,
        must_store: bool = True,
    ) -> Obtained:
        settings = TensorRTSettings(buckets=buckets, build=build or BuildSettings())
        profiles = settings.profiles(self.model.facts)
        key = key_of(self.package, self.gpu, graph, profiles, settings.build, model="tiny")
        cache = EngineCache(self.root, write=self.write)
        engines = Engines(self.package, cache, gpu=self.gpu, report=self.lines.append)
        return engines.obtain(key, graph, settings.build, must_store=must_store)

    @property
    def builds(self) -> int:
        return trt(self.package).calls.count("build")

    def folder(self) -> Path:
        (manifest,) = self.root.rglob(MANIFEST)
        return manifest.parent


@pytest.fixture
def site(tmp_path: Path, model: Model) -> Site:
    return Site(tmp_path / "cache", model)


def test_a_second_start_builds_nothing(site: Site, graph: UNetGraph, model: Model) -> None:
    first = site.obtain(graph)
    assert first.built and site.builds == 1
    again = Site(site.root, model)
    second = again.obtain(graph)
    assert not second.built and again.builds == 0
    assert bytes(second.plans[0].content) == bytes(first.plans[0].content)
    assert second.plans[0].profiles == first.plans[0].profiles
    assert not [path for path in site.root.rglob("*") if path.name.endswith(".part")]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"buckets": (1, 2, 4)}, "built for bucket 1,2; asked 1,2,4"),
        (
            {"build": BuildSettings(distributive_independence=True)},
            "built for flags none; asked DISTRIBUTIVE",
        ),
        ({"build": BuildSettings(level=5)}, "built for optimisation level TensorRT's own; asked 5"),
    ],
)
def test_other_settings_are_a_reason_and_a_rebuild(
    site: Site, graph: UNetGraph, change: dict[str, Any], reason: str
) -> None:
    site.obtain(graph)
    assert site.obtain(graph, **change).built
    assert any(reason in line for line in site.lines), site.lines
    assert not site.obtain(graph, **change).built


def test_another_version_gpu_or_graph_is_a_reason_and_a_rebuild(
    site: Site, graph: UNetGraph, model: Model, tmp_path: Path
) -> None:
    site.obtain(graph)
    newer = Site(site.root, model)
    newer.package = replace(newer.package, version="10.14.1")
    assert newer.obtain(graph).built
    assert "built for backend tensorrt 10.13.0.35; asked tensorrt 10.14.1" in newer.lines[0]
    changed = write_graph(tmp_path / "other", structure=b"another graph")
    assert newer.obtain(changed).built
    assert any("built for graph" in line for line in newer.lines)
    # Another card has a folder of its own: machines that share a volume do not build in turns for ever.
    elsewhere = Site(site.root, model, gpu=OTHER_GPU)
    assert elsewhere.obtain(graph).built and not newer.obtain(changed).built


def test_an_engine_that_was_moved_to_another_gpu_is_not_used(
    site: Site, graph: UNetGraph, model: Model
) -> None:
    site.obtain(graph)
    stranger = Site(site.root, model, gpu=OTHER_GPU)
    own = stranger.root / "tensorrt" / "tiny" / "NVIDIA-L4" / "float32"
    own.parent.mkdir(parents=True)
    site.folder().rename(own)
    assert stranger.obtain(graph).built
    expected = "built for NVIDIA A10 (compute capability 8.6); this is NVIDIA L4 (compute capability 8.9)"
    assert expected in stranger.lines[0]


def test_an_engine_built_ahead_of_time_is_found_by_the_gpus_that_it_is_for(
    tmp_path: Path, graph: UNetGraph, model: Model
) -> None:
    root = tmp_path / "cache"
    ahead = Site(root, model, backend="tensorrt-rtx", gpu=None)
    assert ahead.obtain(graph, build=BuildSettings(targets=("8.0", "8.6"))).built
    fits = Site(root, model, backend="tensorrt-rtx")
    assert not fits.obtain(graph).built
    other = Site(root, model, backend="tensorrt-rtx", gpu=OTHER_GPU)
    assert other.obtain(graph).built
    assert "built for compute capability 8.0, 8.6" in other.lines[0]


def damage_truncate(folder: Path) -> str:
    (plan,) = folder.glob("*.plan")
    size = plan.stat().st_size
    os.truncate(plan, size - 5)
    return f"{plan}: engine is truncated or has grown; expected {size} bytes; found {size - 5} bytes"


def damage_flip(folder: Path) -> str:
    (plan,) = folder.glob("*.plan")
    content = bytearray(plan.read_bytes())
    content[7] ^= 1
    plan.write_bytes(content)
    return f"{plan}: engine is damaged; expected SHA-256"


def damage_missing(folder: Path) -> str:
    (plan,) = folder.glob("*.plan")
    plan.unlink()
    return f"{plan}: engine cannot be read"


def damage_manifest(folder: Path) -> str:
    (folder / MANIFEST).write_text('{"format": 1, "key"', encoding="utf-8")
    return f"{folder / MANIFEST}: not a manifest"


def damage_format(folder: Path) -> str:
    content = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**content, "format": 99}), encoding="utf-8")
    return f"{folder / MANIFEST}: manifest has another format; expected 1; found 99"


def damage_path(folder: Path) -> str:
    content = json.loads((folder / MANIFEST).read_text())
    content["plans"][0]["file"] = "../../elsewhere.plan"
    (folder / MANIFEST).write_text(json.dumps(content), encoding="utf-8")
    return "the engine's file lies outside its folder"


@pytest.mark.parametrize(
    "damage", [damage_truncate, damage_flip, damage_missing, damage_manifest, damage_format, damage_path]
)
def test_a_damaged_engine_is_named_and_built_again(
    site: Site, graph: UNetGraph, damage: Callable[[Path], str]
) -> None:
    site.obtain(graph)
    words = damage(site.folder())
    assert site.obtain(graph).built
    assert any(words in line for line in site.lines), site.lines
    assert not site.obtain(graph).built


def test_a_full_disk_names_file_expected_and_found_and_leaves_nothing(
    site: Site, graph: UNetGraph, model: Model
) -> None:
    site.obtain(graph)
    before = {path: path.read_bytes() for path in site.root.rglob("*") if path.is_file()}

    def full(path: Path, content: Any) -> None:
        path.write_bytes(memoryview(content)[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    small = Site(site.root, model)
    small.write = full
    words = r"\.plan: cannot be written; expected \d+ bytes of room; found .*No space"
    with pytest.raises(EngineStoreError, match=words):
        small.obtain(graph, (1, 2, 4))
    after = {path: path.read_bytes() for path in site.root.rglob("*") if path.is_file()}
    assert {p: c for p, c in after.items() if p.name != "build.lock"} == {
        p: c for p, c in before.items() if p.name != "build.lock"
    }
    assert not Site(site.root, model).obtain(graph).built

    # A server goes on with what it has in memory, and says so.
    with structlog.testing.capture_logs() as logs:
        obtained = small.obtain(graph, (1, 2, 4), must_store=False)
    assert obtained.built and obtained.manifest is None and len(obtained.plans[0].content) > 0
    assert any("No space" in entry.get("error", "") for entry in logs)


def test_a_writer_that_loses_bytes_is_noticed(site: Site, graph: UNetGraph) -> None:
    site.write = lambda path, content: path.write_bytes(memoryview(content)[:-1]) and None
    with pytest.raises(EngineStoreError, match="bytes were written"):
        site.obtain(graph)
    assert not list(site.root.rglob(MANIFEST))


def test_a_crash_between_engine_and_manifest_leaves_the_old_engine(
    site: Site, graph: UNetGraph, model: Model
) -> None:
    site.obtain(graph)

    def crash(path: Path, content: Any) -> None:
        if MANIFEST in path.name:
            raise KeyboardInterrupt
        path.write_bytes(content)

    victim = Site(site.root, model)
    victim.write = crash
    with pytest.raises(KeyboardInterrupt):
        victim.obtain(graph, (1, 2, 4))
    survivor = Site(site.root, model)
    assert not survivor.obtain(graph).built
    assert survivor.obtain(graph, (1, 2, 4)).built
    assert len(list(site.root.rglob("*.plan"))) == 1, "what no manifest names is dropped by the next build"


def test_left_over_temporaries_are_swept(site: Site, graph: UNetGraph) -> None:
    site.obtain(graph)
    left = site.folder() / ".abc.plan.999.part"
    left.write_bytes(b"half")
    site.obtain(graph, (1, 2, 4))
    assert not left.exists()


def test_a_folder_that_cannot_be_made_is_named(graph: UNetGraph, model: Model, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    site = Site(tmp_path / "cache", model)
    with pytest.raises(EngineStoreError, match="folder cannot be made"):
        site.obtain(graph)
    assert site.obtain(graph, must_store=False).manifest is None


def test_new_weights_refit_an_engine_that_allows_it(
    site: Site, graph: UNetGraph, model: Model, tmp_path: Path
) -> None:
    refit = BuildSettings(refit=True)
    first = site.obtain(graph, build=refit)
    trained = write_graph(tmp_path / "trained", weights=b"new weights")
    second = site.obtain(trained, build=refit)
    calls = trt(site.package).calls
    assert second.built and calls.count("build") == 1 and calls.count("refit") == 1
    assert bytes(second.plans[0].content) != bytes(first.plans[0].content)
    assert not site.obtain(trained, build=refit).built
    # Another graph, an engine without the flag, and weights that do not fit are built.
    other = write_graph(tmp_path / "other", structure=b"another", weights=b"new weights")
    site.obtain(other, build=refit)
    assert calls.count("build") == 2 and calls.count("refit") == 1
    trt(site.package).fail = "refit"
    site.obtain(write_graph(tmp_path / "more", structure=b"another", weights=b"x"), build=refit)
    assert calls.count("build") == 3 and any("weights of another shape" in line for line in site.lines)
    plain = Site(tmp_path / "plain", model)
    plain.obtain(graph)
    plain.obtain(trained)
    assert plain.builds == 2


def test_the_timing_cache_goes_from_build_to_build(site: Site, graph: UNetGraph, model: Model) -> None:
    site.obtain(graph)
    site.obtain(graph, (1, 2, 4))
    assert (site.folder() / "timing.cache").read_bytes() == b"+timed+timed"
    (site.folder() / "timing.cache").write_bytes(b"other GPU's")
    site.obtain(graph, (1,))
    assert (site.folder() / "timing.cache").read_bytes() == b"+timed"
    rtx = Site(site.root, model, backend="tensorrt-rtx")
    assert rtx.obtain(graph).folder is not None
    assert not list((site.root / "tensorrt-rtx").rglob("timing.cache"))


def _build_in_process(root: Path, graph: UNetGraph, gate: Any, results: Any) -> None:
    shapes = {"sample": (-1, 4, -1, -1), "timestep": (-1,), "kv_text": (-1, -1, 8), "kv_ip": (-1, -1, 8)}
    inputs = [ITensor(name, DataType.FLOAT, shape) for name, shape in {**shapes, "ip_mask": (-1, -1)}.items()]
    module = FakeTensorRT(inputs, lambda tensors: tensors["sample"])
    package = TensorRTPackage(backend="tensorrt", module=module, version="10.13")
    profiles = profiles_of((1, 2), [(8, 8)], text_tokens=77, ip_tokens=4)
    settings = BuildSettings()
    key = key_of(package, GPU, graph, profiles, settings, model="tiny")
    engines = Engines(package, EngineCache(root), gpu=GPU, report=lambda line: None)
    gate.wait()
    obtained = engines.obtain(key, graph, settings, must_store=True)
    results.put((obtained.built, bytes(obtained.plans[0].content)))


def test_two_processes_build_once(tmp_path: Path, graph: UNetGraph) -> None:
    context = multiprocessing.get_context("spawn")
    gate, results = context.Barrier(2), context.Queue()
    arguments = (tmp_path / "cache", graph, gate, results)
    workers = [context.Process(target=_build_in_process, args=arguments) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join(timeout=60)
    assert sorted(built for built, _ in found) == [False, True]
    assert found[0][1] == found[1][1]


def test_a_folder_without_locks_is_one_that_keeps_nothing(site: Site, graph: UNetGraph) -> None:
    site.obtain(graph)
    lock = site.folder() / LOCK
    lock.unlink()
    lock.mkdir()
    with pytest.raises(EngineStoreError, match=r"cannot be locked.*build\.lock"):
        site.obtain(graph, (1, 2, 4))
    obtained = site.obtain(graph, (1, 2, 4), must_store=False)
    assert obtained.built and obtained.manifest is None
    assert not site.obtain(graph).built, "what is there already is read without a lock"


def test_names_make_folders(graph: UNetGraph, model: Model) -> None:
    profiles = TensorRTSettings(buckets=(1,)).profiles(model.facts)
    key = key_of(fake_package(model), GPU, graph, profiles, BuildSettings(), model="../../etc/pass wd")
    assert key.place == "tensorrt/etc-pass-wd/NVIDIA-A10/float32"
    assert isinstance(key, EngineKey) and key.differences(key) == []


def test_a_plan_is_never_read_beyond_its_manifest(site: Site, graph: UNetGraph) -> None:
    obtained = site.obtain(graph)
    assert obtained.manifest is not None and obtained.folder is not None
    (plan,) = obtained.manifest.plans
    with (obtained.folder / plan.file).open("ab") as file:
        file.write(b"more")
    with pytest.raises(EngineRefusedError, match="truncated or has grown"):
        EngineCache(site.root).plan(obtained.folder, plan)
