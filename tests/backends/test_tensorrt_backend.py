"""The TensorRT backend over a fake runtime: bindings, buckets, graphs, and the same numbers as the torch module."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.backends.base import MAX_REFERENCES, Backend, PlacedReference, RowConditioning
from engine.backends.registry import create_backend
from engine.backends.slots import SlotError, SlotsExhaustedError
from engine.backends.tensorrt.backend import TensorRTSettings
from engine.backends.tensorrt.builder import BuildSettings
from engine.backends.tensorrt.driver import Gpu, find_gpu
from engine.backends.tensorrt.errors import (
    BuildFailedError,
    DriverMissingError,
    EngineCallError,
    EngineRefusedError,
    GraphRefusedError,
    PackageMissingError,
)
from engine.backends.tensorrt.graph import UNetGraph
from engine.backends.tensorrt.package import load_package
from engine.backends.torch_backend import TorchBackend, TorchSettings
from engine.models.model import Model, load_model
from tests.backends.fake_tensorrt import BuilderFlag, ComputeCapability, ITensor
from tests.backends.host_stream import HostStream
from tests.backends.tensorrt_bench import fake_package, make_backend, trt, write_graph
from tests.tinymodels import TinyXLSettings, build_tiny_model, build_tiny_xl


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(build_tiny_model(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def graph(tmp_path: Path) -> UNetGraph:
    return write_graph(tmp_path / "export")


def rows(backend: Backend, count: int) -> list[RowConditioning]:
    """Return rows without a reference, with one, and with up to four."""
    prompts = backend.encode_prompts(["a man", "a woman", ""])
    facts = backend.facts
    shape = (MAX_REFERENCES, facts.reference_tokens, facts.token_width)
    tokens = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return [
        RowConditioning(
            prompt=prompts[n % 3],
            references=tuple(
                PlacedReference(
                    adapter=facts.adapter().name,
                    tokens=tokens[k] * n,
                    scales=tuple(0.5 + n / 4 + 0.01 * layer for layer in range(facts.layers)),
                )
                for k in range((0, 1, 1, 0, 4, 1, 2, 3)[n % 8])
            ),
        )
        for n in range(count)
    ]


def latents(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(count, 4, 8, 8, generator=generator), torch.linspace(1, 999, count)


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize("refuse", [False, True], ids=["graphs", "no-graphs"])
def test_ticks_equal_the_torch_backend(
    model: Model, graph: UNetGraph, tmp_path: Path, name: str, refuse: bool
) -> None:
    stream = HostStream(refuse=refuse)
    backend = make_backend(fake_package(model, backend=name), model, graph, tmp_path, stream=stream)
    plain = TorchBackend(model, TorchSettings(buckets=(1, 2, 4), capacity=8, packed=False))
    placed = [(backend.place(row), plain.place(row)) for row in rows(backend, 8)]
    sample, step = latents(8)
    # Slots apart from each other, in another order, padded, repeated and in every bucket.
    for chosen, bucket in (
        ([0], 1),
        ([5, 2], 2),
        ([7, 0, 3], 4),
        ([7, 0, 3], 4),
        ([6, 5, 4, 3], 4),
        ([1], 4),
    ):
        mine = backend.predict_noise([placed[n][0] for n in chosen], sample[chosen], step[chosen], bucket)
        theirs = plain.predict_noise([placed[n][1] for n in chosen], sample[chosen], step[chosen], bucket)
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-6)
    # Engines have room for all references, so rows of one and of several run together.
    assert stream.calls.count("capture") == 3
    assert all(call.captured is not refuse for call in backend.calls())
    if refuse:
        assert all("not permitted" in str(call.reason) for call in backend.calls())


@pytest.mark.parametrize("guided", [None, 16], ids=["sdxl", "sdxl-lcm"])
def test_sdxl_gets_its_vectors(tmp_path: Path, guided: int | None) -> None:
    settings = TinyXLSettings(adapters=("base", "plus"), guidance_width=guided)
    model = load_model(build_tiny_xl(tmp_path / "xl", settings), adapter="plus")
    package = fake_package(model)
    backend = make_backend(package, model, write_graph(tmp_path / "export"), tmp_path)
    plain = TorchBackend(model, TorchSettings(buckets=(1, 2, 4), capacity=8, packed=False))
    # Tokens of the adapter that gives most, four times over, are what an engine has room for.
    tokens = max(adapter.tokens for adapter in model.facts.adapters)
    assert TensorRTSettings().profiles(model.facts)[0].ip_tokens == MAX_REFERENCES * tokens
    asked = [replace(row, size=(64 + 32 * n, 64), guidance_scale=n) for n, row in enumerate(rows(backend, 5))]
    placed = [(backend.place(row), plain.place(row)) for row in asked]
    sample, step = latents(5)
    for chosen, bucket in (([0], 1), ([4, 2], 2), ([3, 0, 1, 4], 4)):
        mine = backend.predict_noise([placed[n][0] for n in chosen], sample[chosen], step[chosen], bucket)
        theirs = plain.predict_noise([placed[n][1] for n in chosen], sample[chosen], step[chosen], bucket)
        torch.testing.assert_close(mine, theirs, rtol=0, atol=5e-6)
    names = {"sample", "timestep", "kv_text", "kv_ip", "ip_mask", "text_embeds", "time_ids", "noise"}
    assert set(trt(package).contexts[0]._addresses) == names | ({"timestep_cond"} if guided else set())


def test_each_bucket_has_one_context_bound_once(model: Model, graph: UNetGraph, tmp_path: Path) -> None:
    package = fake_package(model)
    backend = make_backend(package, model, graph, tmp_path)
    slots = [backend.place(row) for row in rows(backend, 4)]
    sample, step = latents(4)
    for _ in range(3):
        for bucket in (1, 2, 4):
            backend.predict_noise(slots[:bucket], sample[:bucket], step[:bucket], bucket)
    contexts = trt(package).contexts
    assert len(contexts) == 3
    # The conditioning of every bucket lies at one address, so that a row that stays is never copied again.
    assert len({context._addresses["kv_text"] for context in contexts}) == 1
    assert len({context._memory for context in contexts}) == 1
    assert len({context._addresses["sample"] for context in contexts}) == 3


def test_a_released_slot_serves_its_next_row(model: Model, graph: UNetGraph, tmp_path: Path) -> None:
    backend = make_backend(fake_package(model), model, graph, tmp_path)
    first, second = rows(backend, 2)
    sample, step = latents(1)
    slot = backend.place(first)
    before = backend.predict_noise([slot], sample, step, 1)
    backend.release(slot)
    assert backend.place(second) == slot
    after = backend.predict_noise([slot], sample, step, 1)
    assert not torch.equal(before, after)
    backend.release(slot)
    with pytest.raises(SlotError):
        backend.predict_noise([slot], sample, step, 1)
    for row in rows(backend, 8):
        backend.place(row)
    with pytest.raises(SlotsExhaustedError):
        backend.place(first)


def test_only_sizes_and_buckets_that_were_built_run(model: Model, graph: UNetGraph, tmp_path: Path) -> None:
    settings = TensorRTSettings(buckets=(1, 2), sizes=((64, 96), (64, 64)), capacity=4)
    backend = make_backend(fake_package(model), model, graph, tmp_path, settings)
    assert (backend.facts.default_height, backend.facts.default_width) == (64, 96)
    assert backend.buckets((4, 8, 12)) == backend.buckets((4, 8, 8)) == (1, 2)
    assert backend.buckets((4, 16, 16)) == backend.buckets((3, 8, 8)) == ()
    slot = backend.place(rows(backend, 1)[0])
    wide = backend.predict_noise([slot], torch.ones(1, 4, 8, 12), torch.ones(1), 1)
    assert wide.shape == (1, 4, 8, 12)
    for sample, bucket in (
        (torch.ones(1, 4, 16, 16), 1),
        (torch.ones(1, 4, 8, 8), 4),
        (torch.ones(2, 4, 8, 8), 1),
    ):
        with pytest.raises(ValueError, match="bucket"):
            backend.predict_noise([slot] * len(sample), sample, torch.ones(len(sample)), bucket)
    with pytest.raises(ValueError, match="multiple"):
        TensorRTSettings(sizes=((60, 64),)).profiles(model.facts)


def test_half_engines_get_half_tensors(tmp_path: Path) -> None:
    half = load_model(build_tiny_model(tmp_path / "model"), dtype=torch.float16)
    graph = write_graph(tmp_path / "export", dtype="float16")
    backend = make_backend(fake_package(half), half, graph, tmp_path / "cache")
    slot = backend.place(rows(backend, 1)[0])
    sample, step = latents(1)
    noise = backend.predict_noise([slot], sample, step, 1)
    assert noise.dtype == torch.float32 and noise.isfinite().all()


def test_pictures_come_out(model: Model, graph: UNetGraph, tmp_path: Path) -> None:
    from loadtests.gpu.driver import LoopDriver, picture

    driver = LoopDriver(make_backend(fake_package(model), model, graph, tmp_path))
    tokens = driver.encode(picture(0), picture(1))
    for number in range(3):
        driver.submit(tokens if number else None, job_id=str(number), steps=3, seeds=(number,))
    together = driver.finish()
    for number in range(3):
        driver.submit(tokens if number else None, job_id=str(number), steps=3, seeds=(number,))
        alone = driver.finish()
        np.testing.assert_allclose(
            alone[str(number)][0].astype(int), together[str(number)][0].astype(int), atol=1
        )
    driver.submit(None, job_id="large", steps=1, width=128, height=128)
    with pytest.raises(RuntimeError, match="no engine was built for 128x128"):
        driver.finish()


@pytest.mark.parametrize(
    ("fail", "error", "words"),
    [
        ("parse", GraphRefusedError, "unsupported operator Foo"),
        ("build", BuildFailedError, "no tactic for node 7"),
        ("deserialize", EngineRefusedError, "incompatible device"),
    ],
)
def test_what_tensorrt_says_is_in_the_error(
    model: Model, graph: UNetGraph, tmp_path: Path, fail: str, error: type[Exception], words: str
) -> None:
    package = fake_package(model)
    trt(package).fail = fail
    with pytest.raises(error, match=words):
        make_backend(package, model, graph, tmp_path)


@pytest.mark.parametrize(
    ("fail", "words"), [("context", "no execution context"), ("execute", "execute_async_v3")]
)
def test_a_refused_call_is_an_error(
    model: Model, graph: UNetGraph, tmp_path: Path, fail: str, words: str
) -> None:
    package = fake_package(model)
    backend = make_backend(package, model, graph, tmp_path)
    slot = backend.place(rows(backend, 1)[0])
    trt(package).fail = fail
    with pytest.raises(EngineCallError, match=words):
        backend.predict_noise([slot], *latents(1), 1)


def test_a_graph_with_other_inputs_is_refused(model: Model, graph: UNetGraph, tmp_path: Path) -> None:
    package = fake_package(model)
    inputs = trt(package).graph
    trt(package).graph = [tensor for tensor in inputs if tensor.name != "ip_mask"]
    with pytest.raises(GraphRefusedError, match="lacks an input; tensor ip_mask"):
        make_backend(package, model, graph, tmp_path)
    trt(package).graph = [*inputs, ITensor("mystery", inputs[0].dtype, (-1, 3))]
    with pytest.raises(GraphRefusedError, match="unknown input; tensor mystery"):
        make_backend(package, model, graph, tmp_path)
    fixed = ITensor("sample", inputs[0].dtype, (-1, 4, 16, 16))
    trt(package).graph = [fixed, *inputs[1:]]
    with pytest.raises(
        GraphRefusedError, match=r"tensor sample; expected \[1, 4, 8, 8\]; found \[-1, 4, 16, 16\]"
    ):
        make_backend(package, model, graph, tmp_path)
    wide = ITensor("kv_text", inputs[0].dtype, (-1, -1, 17))
    trt(package).graph = [wide if tensor.name == "kv_text" else tensor for tensor in inputs]
    backend = make_backend(package, model, graph, tmp_path)
    slot = backend.place(rows(backend, 1)[0])
    with pytest.raises(EngineCallError, match="set_input_shape; tensor kv_text"):
        backend.predict_noise([slot], *latents(1), 1)


def test_settings_reach_the_builder(model: Model, graph: UNetGraph, tmp_path: Path) -> None:
    package = fake_package(model, backend="tensorrt-rtx")
    build = BuildSettings(distributive_independence=True, level=2)
    settings = TensorRTSettings(buckets=(1, 2), capacity=4, build=build)
    backend = make_backend(package, model, graph, tmp_path, settings)
    config = trt(package).last_config
    assert config is not None
    assert config.flags == {BuilderFlag.DISTRIBUTIVE_INDEPENDENCE}
    assert config.builder_optimization_level == 2 and config.cache is None
    # TensorRT takes that flag with one profile alone, so each bucket is an engine of its own.
    assert trt(package).calls.count("build") == 2
    assert len(list((tmp_path / "tensorrt-rtx").rglob("*.plan"))) == 2
    assert backend.buckets((4, 8, 8)) == (1, 2)


def test_targets_need_a_package_that_builds_ahead_of_time(
    model: Model, graph: UNetGraph, tmp_path: Path
) -> None:
    build = BuildSettings(targets=("8.6",))
    settings = TensorRTSettings(buckets=(1,), capacity=4, build=build)
    with pytest.raises(BuildFailedError, match="for the GPU at hand alone"):
        make_backend(fake_package(model), model, graph, tmp_path, settings)
    package = fake_package(model, backend="tensorrt-rtx")
    make_backend(package, model, graph, tmp_path, settings)
    config = trt(package).last_config
    assert config is not None and config.targets == {0: ComputeCapability.SM86}
    settings = TensorRTSettings(buckets=(1,), capacity=4, build=BuildSettings(targets=("9.0",)))
    with pytest.raises(BuildFailedError, match=r"expected 8.0, 8.6, 8.9; found 9.0"):
        make_backend(package, model, graph, tmp_path, settings)


def test_without_driver_or_package_the_error_says_what_is_missing(tmp_path: Path) -> None:
    def nothing(name: str) -> object:
        raise OSError(f"{name}: cannot open shared object file")

    with pytest.raises(DriverMissingError, match=r"no NVIDIA driver; expected libcuda.so.1"):
        find_gpu(load=nothing)
    with pytest.raises(PackageMissingError, match=r"limner\[tensorrt\]"):
        load_package("tensorrt", load=nothing)


def test_the_driver_is_asked_before_tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_driver(index: int = 0) -> Gpu:
        raise DriverMissingError("no NVIDIA driver")

    monkeypatch.setattr("engine.backends.tensorrt.backend.find_gpu", no_driver)
    for name in ("tensorrt", "tensorrt-rtx"):
        with pytest.raises(DriverMissingError):
            create_backend(name, tmp_path / "nothing is read", device="cuda")


class FakeDriver:
    """libcuda with one GPU; ``fails`` answers a call with an error."""

    def __init__(self, fails: str | None = None, count: int = 1) -> None:
        self._fails, self._count = fails, count

    def __getattr__(self, name: str) -> object:
        def call(*arguments: object) -> int:
            if name == self._fails:
                return 100
            values = {"cuDeviceGetCount": self._count, "cuDeviceGet": 0, "cuDriverGetVersion": 13010}
            if name in values:
                arguments[0]._obj.value = values[name]  # type: ignore[attr-defined]
            if name == "cuDeviceGetAttribute":
                arguments[0]._obj.value = {75: 9, 76: 0}[arguments[1]]  # type: ignore[attr-defined, index]
            if name == "cuDeviceGetName":
                arguments[0].value = b"NVIDIA H100 80GB HBM3"  # type: ignore[attr-defined]
            return 0

        return call


def test_the_driver_names_the_gpu() -> None:
    gpu = find_gpu(load=lambda name: FakeDriver())
    assert gpu == Gpu(name="NVIDIA H100 80GB HBM3", compute_capability="9.0", driver="13.1")
    with pytest.raises(DriverMissingError, match="cuInit with error 100"):
        find_gpu(load=lambda name: FakeDriver(fails="cuInit"))
    with pytest.raises(DriverMissingError, match="expected GPU 1; found 1 visible"):
        find_gpu(1, load=lambda name: FakeDriver())
