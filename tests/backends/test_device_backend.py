"""Torch on a GPU, on a CPU whose stream only pretends: rows, graphs, layouts, and what is missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.backends.base import RowConditioning
from engine.backends.cuda_stream import WARM_CALLS, CapturedCall
from engine.backends.device_backend import DeviceBackend
from engine.backends.options import UnknownBackendError
from engine.backends.registry import create_backend
from engine.backends.torch_backend import TorchBackend, TorchSettings
from engine.backends.torch_programs import DeviceMissingError, TorchDeviceSettings, TorchPrograms
from engine.models.model import Model, load_model
from engine.models.placement import move_model
from tests.backends.host_stream import HostStream
from tests.tinymodels import build_tiny_model

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


def place(backend: DeviceBackend | TorchBackend, count: int) -> list[int]:
    prompts = backend.encode_prompts(["a man", "a hat", ""])
    tokens = torch.randn(4, 32, generator=torch.Generator().manual_seed(1))
    rows = [
        RowConditioning(prompt=prompts[n % 3], reference_tokens=tokens * n if n % 2 else None, scale=0.2 * n)
        for n in range(count)
    ]
    return [backend.place(row) for row in rows]


def latents(count: int, side: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(count, 4, side, side, generator=generator), torch.linspace(1, 999, count)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("references", [1, 2])
def test_rows_are_those_of_the_cpu_backend(root: Path, channels_last: bool, references: int) -> None:
    plain = TorchBackend(load_model(root), TorchSettings(buckets=BUCKETS, capacity=8, packed=False))
    stream = HostStream()
    backend = on_device(load_model(root), stream, channels_last=channels_last, max_references=references)
    mine, theirs = place(backend, 8), place(plain, 8)
    sample, step = latents(8)
    for chosen, bucket in (([3], 1), ([7, 1], 2), ([6, 0, 5], 4), ([6, 0, 5], 4), ([2, 6, 0, 5], 4)):
        found = backend.predict_noise([mine[n] for n in chosen], sample[chosen], step[chosen], bucket)
        wanted = plain.predict_noise([theirs[n] for n in chosen], sample[chosen], step[chosen], bucket)
        torch.testing.assert_close(found, wanted, rtol=0, atol=5e-6)
    assert stream.calls.count("capture") == len(BUCKETS) and stream.calls.count("replay") == 5


def test_a_row_that_stays_keeps_its_place(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = on_device(model)
    slots = place(backend, 6)
    copied: list[int] = []
    copy = backend._staging._copy
    monkeypatch.setattr(backend._staging, "_copy", lambda slot, at: (copied.append(slot), copy(slot, at)))
    sample, step = latents(4)
    for chosen in ([0, 1, 2, 3], [3, 0, 2, 1], [0, 1, 5, 3]):
        backend.predict_noise([slots[n] for n in chosen], sample, step, 4)
    assert copied == [0, 1, 2, 3, 5]


def test_other_sizes_get_programs_of_their_own_and_the_oldest_go(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.backends.device_backend.PROGRAMS", 2)
    backend = on_device(model)
    (slot,) = place(backend, 1)
    for side in (2, 4, 6, 2):
        found = backend.predict_noise([slot], *latents(1, side), 1)
        assert found.shape == (1, 4, side, side)
    assert [call.name for call in backend.calls()] == ["torch 1x4x6x6", "torch 1x4x2x2"]


def test_a_row_does_not_see_what_padded_the_bucket_before(model: Model) -> None:
    backend = on_device(model)
    slots = place(backend, 4)
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
    assert meta.unconditional_tokens is not None and meta.unconditional_tokens.is_meta
    assert meta.text_kv.weight.is_meta and next(meta.decoder.vae.parameters()).is_meta
    assert next(meta.prompts.model.parameters()).is_meta
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
