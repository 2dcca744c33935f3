"""Torch on a GPU, on a CPU whose stream only pretends: rows, graphs, layouts, and what is missing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.backends.base import Backend, PlacedReference, RowConditioning, UnknownAdapterError
from engine.backends.device.backend import DeviceBackend
from engine.backends.device.stream import WARM_CALLS, CapturedCall
from engine.backends.device.torch_programs import DeviceMissingError, TorchDeviceSettings, TorchPrograms
from engine.backends.options import UnknownBackendError
from engine.backends.registry import create_backend
from engine.backends.slots import ReferenceTooLongError, Staging
from engine.backends.slotted import RegionsUnsupportedError
from engine.backends.torch_backend import TorchBackend, TorchSettings
from engine.models.model import Model, load_model
from engine.models.placement import move_model
from tests.backends.host_stream import HostStream
from tests.tinymodels import TinySettings, TinyXLSettings, build_tiny_model, build_tiny_xl

CPU = torch.device("cpu")
BUCKETS = (1, 2, 4)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def model(root: Path) -> Model:
    return load_model(root)


def on_device(model: Model, stream: HostStream | None = None, **settings: object) -> DeviceBackend:
    chosen = TorchDeviceSettings(buckets=BUCKETS, **settings)  # type: ignore[arg-type]
    programs = TorchPrograms(model.unet, stream or HostStream(), chosen)
    return DeviceBackend(
        move_model(model, CPU), programs, device=CPU, capacity=8, max_references=chosen.max_references
    )


def on_cpu(model: Model) -> TorchBackend:
    return TorchBackend(model, TorchSettings(buckets=BUCKETS, capacity=8, packed=False))


def row(backend: Backend, index: int, references: int, adapter: str = "") -> RowConditioning:
    facts = backend.facts
    (prompt,) = backend.encode_prompts([("a man", "a hat", "")[index % 3]])
    at = facts.adapter(adapter) if references else None
    tokens = torch.randn(
        (references, at.tokens if at else 0, facts.token_width),
        generator=torch.Generator().manual_seed(index),
    )
    return RowConditioning(
        prompt=prompt,
        references=tuple(
            PlacedReference(
                adapter=at.name if at else "",
                tokens=one,
                scales=tuple(0.2 * index + 0.01 * layer for layer in range(facts.layers)),
            )
            for one in tokens
        ),
        size=(64 + 8 * index, 64),
        guidance_scale=1.0 + index,
    )


def place(backend: Backend, counts: Sequence[int]) -> list[int]:
    """Place rows that bring so many references each."""
    return [backend.place(row(backend, index, count)) for index, count in enumerate(counts)]


def tick(backend: Backend, slots: Sequence[int], chosen: Sequence[int], bucket: int) -> torch.Tensor:
    """Predict the noise of some rows, each of which always has the same latents and timestep."""
    shape = (backend.facts.latent_channels, 8, 8)
    sample = torch.randn((8, *shape), generator=torch.Generator().manual_seed(2))
    step = torch.linspace(1, 999, 8)
    rows = list(chosen)
    return backend.predict_noise([slots[n] for n in rows], sample[rows], step[rows], bucket)


def latents(count: int, side: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(count, 4, side, side, generator=generator), torch.linspace(1, 999, count)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("references", [1, 4])
def test_rows_are_those_of_the_cpu_backend(root: Path, channels_last: bool, references: int) -> None:
    plain = on_cpu(load_model(root))
    stream = HostStream()
    backend = on_device(load_model(root), stream, channels_last=channels_last, max_references=references)
    counts = [min(count, references) for count in (0, 1, 2, 1, 0, 4, 1, 3)]
    mine, theirs = place(backend, counts), place(plain, counts)
    ticks = (([3], 1), ([5], 1), ([7, 1], 2), ([6, 0, 5], 4), ([6, 0, 5], 4), ([2, 6, 7, 5], 4))
    for chosen, bucket in ticks:
        found, wanted = tick(backend, mine, chosen, bucket), tick(plain, theirs, chosen, bucket)
        torch.testing.assert_close(found, wanted, rtol=0, atol=5e-6)
    # Rows of several references have programs of their own, and a tick of both kinds runs both.
    kinds = {1: (3, 6), 4: (6, 10)}[references]
    assert (stream.calls.count("capture"), stream.calls.count("replay")) == kinds
    backend.release(mine[0])
    with pytest.raises(ReferenceTooLongError):
        backend.place(row(backend, 0, references + 1))


@pytest.mark.parametrize("bucket", BUCKETS)
def test_a_row_is_bit_independent_of_what_its_neighbours_bring(model: Model, bucket: int) -> None:
    backend = on_device(model)
    slots = place(backend, (0, 1, 2, 1, 0, 4, 1, 3))
    alone = torch.cat([tick(backend, slots, [n], bucket) for n in range(8)])
    order = random.Random(bucket)
    for _ in range(12):
        chosen = order.sample(range(8), order.randint(1, bucket))
        assert torch.equal(tick(backend, slots, chosen, bucket), alone[chosen]), chosen


def test_a_mixed_tick_is_its_groups(model: Model) -> None:
    backend = on_device(model)
    slots = place(backend, (1, 4, 0, 2))
    mixed = tick(backend, slots, [0, 1, 2, 3], 4)
    for group in ([0, 2], [1, 3]):
        assert torch.equal(tick(backend, slots, group, 4), mixed[group])


def test_adapters_of_different_lengths_share_a_tick(tmp_path: Path) -> None:
    root = build_tiny_model(tmp_path, TinySettings(adapters=("base", "plus")))
    plain, backend = on_cpu(load_model(root, adapter="base")), on_device(load_model(root, adapter="base"))
    base, plus = (adapter.tokens for adapter in backend.facts.adapters)
    assert base < plus and set(backend.unconditional_tokens) == {"base", "plus"}
    placed = []
    for at in (backend, plain):
        wanted = [("base", 1), ("plus", 1), ("", 0), ("base", 2), ("plus", 3), ("base", 4), ("plus", 4)]
        placed.append([at.place(row(at, n, count, name)) for n, (name, count) in enumerate(wanted)])
    for chosen, bucket in (([0], 1), ([1, 0], 2), ([0, 1, 2, 3], 4), ([4, 6, 5, 1], 4)):
        found, wanted_noise = tick(backend, placed[0], chosen, bucket), tick(plain, placed[1], chosen, bucket)
        torch.testing.assert_close(found, wanted_noise, rtol=0, atol=5e-6)
        alone = torch.cat([tick(backend, placed[0], [n], bucket) for n in chosen])
        assert torch.equal(found, alone)
    side = backend.facts.reference_size
    pixels = torch.randint(0, 256, (1, side, side, 3), dtype=torch.uint8)
    for name, tokens in (("base", base), ("plus", plus), (None, base)):
        encoded = backend.encode_images(pixels, name)
        assert encoded.shape[1] == tokens and torch.equal(encoded, plain.encode_images(pixels, name))
    with pytest.raises(UnknownAdapterError, match="no adapter 'faces'; the model has base, plus"):
        backend.encode_images(pixels, "faces")
    (known,) = row(backend, 0, 1).references
    with pytest.raises(UnknownAdapterError):
        backend.place(replace(row(backend, 0, 1), references=(replace(known, adapter="faces"),)))


def test_regions_are_refused(model: Model) -> None:
    backend = on_device(model)
    given = row(backend, 0, 2)
    first, second = given.references
    with pytest.raises(RegionsUnsupportedError):
        backend.place(replace(given, references=(first, replace(second, region=(0.0, 0.0, 0.5, 1.0)))))
    assert not backend.facts.regions
    assert backend.place(given) == 0


def test_a_model_without_an_adapter_runs(tmp_path: Path) -> None:
    model = load_model(build_tiny_model(tmp_path, TinySettings(adapters=())))
    plain, backend = on_cpu(model), on_device(model)
    found, wanted = (tick(at, place(at, (0, 0)), [1, 0], 2) for at in (backend, plain))
    torch.testing.assert_close(found, wanted, rtol=0, atol=5e-6)


@pytest.mark.parametrize("guided", [None, 16], ids=["sdxl", "sdxl-lcm"])
def test_vectors_travel_with_their_rows(tmp_path: Path, guided: int | None) -> None:
    root = build_tiny_xl(tmp_path, TinyXLSettings(guidance_width=guided))
    plain, backend = on_cpu(load_model(root)), on_device(load_model(root))
    counts = (1, 0, 2, 1, 0, 4, 1)
    mine, theirs = place(backend, counts), place(plain, counts)
    for chosen, bucket in (([0], 1), ([6, 1], 2), ([3, 2, 4, 5], 4), ([5, 2, 3], 4), ([0, 6, 3, 1], 4)):
        found = tick(backend, mine, chosen, bucket)
        torch.testing.assert_close(found, tick(plain, theirs, chosen, bucket), rtol=0, atol=5e-6)
        assert torch.equal(found, torch.cat([tick(backend, mine, [n], bucket) for n in chosen]))
    before = tick(backend, mine, [3], 1)
    backend.release(mine[3])
    other = replace(row(backend, 3, 1), size=(128, 64), guidance_scale=9.0)
    assert backend.place(other) == mine[3]
    assert not torch.equal(tick(backend, mine, [3], 1), before)


def test_a_row_that_stays_keeps_its_place(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = on_device(model)
    slots = place(backend, (0, 1, 0, 1, 0, 1, 2, 2))
    copied: list[int] = []
    copy = Staging._copy

    def count(self: Staging, slot: int, position: int) -> None:
        copied.append(slot)
        copy(self, slot, position)

    monkeypatch.setattr(Staging, "_copy", count)
    for chosen in ([0, 1, 2, 3], [3, 0, 2, 1], [0, 1, 5, 3], [0, 7, 6, 3], [6, 5, 7, 0]):
        tick(backend, slots, chosen, 4)
    assert copied == [0, 1, 2, 3, 5, 7, 6]


def test_other_sizes_get_programs_of_their_own_and_the_oldest_go(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.backends.device.backend.PROGRAMS", 2)
    backend = on_device(model)
    (slot,) = place(backend, [1])
    for side in (2, 4, 6, 2):
        found = backend.predict_noise([slot], *latents(1, side), 1)
        assert found.shape == (1, 4, side, side)
    assert [call.name for call in backend.calls()] == ["torch 1x4x6x6", "torch 1x4x2x2"]


def test_a_row_does_not_see_what_padded_the_bucket_before(model: Model) -> None:
    backend = on_device(model)
    slots = place(backend, (0, 1, 0, 1))
    sample, step = latents(4)
    sound = backend.predict_noise(slots[:1], sample[:1], step[:1], 4)
    spoilt = sample.clone()
    spoilt[1:] = torch.nan
    backend.predict_noise(slots, spoilt, step, 4)
    assert torch.equal(backend.predict_noise(slots[:1], sample[:1], step[:1], 4), sound)


@pytest.mark.parametrize(("graphs", "refuse"), [(True, False), (True, True), (False, False)])
def test_a_call_is_captured_after_warm_up_or_says_why_not(graphs: bool, refuse: bool) -> None:
    runs: list[int] = []
    stream = HostStream(refuse=refuse)
    call = CapturedCall(lambda: runs.append(1), stream, name="call", graphs=graphs)
    call()
    captured = graphs and not refuse
    assert call.captured is captured
    assert len(runs) == WARM_CALLS + captured + 1
    assert (call.reason is None) is captured
    before = len(runs)
    call()
    assert len(runs) == before + 1 and stream.calls.count("replay") == (2 if captured else 0)


def test_moving_keeps_the_texts_weights_shared(model: Model) -> None:
    meta = move_model(model, torch.device("meta"))
    assert set(meta.unconditional_tokens) == {"base"} and meta.unconditional_tokens["base"].is_meta
    assert all(adapter.kv.weight.is_meta for adapter in meta.adapters.values())
    assert meta.text_kv.weight.is_meta and next(meta.decoder.vae.parameters()).is_meta
    assert all(next(encoder.parameters()).is_meta for encoder in meta.prompts.models)
    assert all(parameter.is_meta for parameter in meta.unet.parameters())


def test_the_unet_can_stay_behind(model: Model) -> None:
    moved = move_model(replace(model), torch.device("meta"), unet=False)
    assert not next(moved.unet.parameters()).is_meta


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_named(root: Path) -> None:
    with pytest.raises(DeviceMissingError, match=r"no device cuda:1: torch .* sees no CUDA device"):
        create_backend("torch", root, device="cuda:1", dtype="float16")
    with pytest.raises(UnknownBackendError, match="cudabacus"):
        create_backend("torch", root, device="cudabacus")
    with pytest.raises(UnknownBackendError, match="not float16"):
        create_backend("torch", root, dtype="float16")
