"""SDXL's pooled text and sizes and LCM's guidance are vectors of a row, held in its slot."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.backends.base import EncodedPrompt, PlacedReference, RowConditioning
from engine.backends.torch_backend import TorchBackend, TorchSettings
from engine.loop.warmup import calibrate
from engine.models.added import AddedInputs, guidance_embedding
from engine.models.model import load_model
from tests.tinymodels import LCM, TinyXLSettings, build_tiny_model, build_tiny_xl, open_pipeline

BUCKETS = (1, 2, 4, 8)
SIZES = ((64, 64), (96, 64), None)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_xl(tmp_path_factory.mktemp("tiny"), TinyXLSettings(guidance_width=16))


@pytest.fixture(scope="module")
def backend(root: Path) -> TorchBackend:
    return TorchBackend(load_model(root), TorchSettings(buckets=BUCKETS, capacity=16))


def row(backend: TorchBackend, index: int) -> RowConditioning:
    (prompt,) = backend.encode_prompts([f"portrait {index}"])
    (name, tokens), *_ = backend.unconditional_tokens.items()
    scales = (0.1 * index,) * backend.facts.layers
    reference = PlacedReference(adapter=name, tokens=tokens, scales=scales)
    return RowConditioning(
        prompt=prompt,
        references=(reference,) * (index % 3),
        size=SIZES[index % len(SIZES)],
        guidance_scale=1.0 + index,
    )


def inputs(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(rows, 4, 8, 8, generator=generator), torch.linspace(1, 999, rows)


@pytest.mark.parametrize("bucket", BUCKETS)
def test_rows_are_bit_independent_of_position_and_neighbours(backend: TorchBackend, bucket: int) -> None:
    sample, step = inputs(12)
    slots = [backend.place(row(backend, index)) for index in range(12)]
    try:
        alone = torch.cat(
            [
                backend.predict_noise([slot], sample[i : i + 1], step[i : i + 1], bucket)
                for i, slot in enumerate(slots)
            ]
        )
        for first in range(0, 12, 3):
            # Slots beyond the bucket go through the copy of their conditioning, in another order.
            order = [(first + 5 * place) % 12 for place in range(bucket)]
            found = backend.predict_noise([slots[i] for i in order], sample[order], step[order], bucket)
            assert torch.equal(found, alone[order])
    finally:
        for slot in slots:
            backend.release(slot)


@pytest.mark.parametrize("change", ["pooled", "size", "guidance_scale"])
def test_each_vector_is_heard_and_a_reused_slot_forgets_it(backend: TorchBackend, change: str) -> None:
    first = row(backend, 1)
    pooled = first.prompt.pooled
    assert pooled is not None
    other = {
        "pooled": replace(first, prompt=replace(first.prompt, pooled=pooled.flip(0))),
        "size": replace(first, size=(64, 128)),
        "guidance_scale": replace(first, guidance_scale=7.0),
    }[change]
    sample, step = inputs(1)
    found = []
    for placed in (first, other, first):
        slot = backend.place(placed)
        found.append(backend.predict_noise([slot], sample, step, 1))
        backend.release(slot)
    assert torch.equal(found[0], found[2]) and not torch.equal(found[0], found[1])


def test_a_row_that_holds_a_slot_already_keeps_its_vectors(backend: TorchBackend) -> None:
    placed = row(backend, 3)
    slots = [backend.place(placed), backend.place(placed)]
    sample, step = inputs(1)
    one, two = (backend.predict_noise([slot], sample, step, 1) for slot in slots)
    for slot in slots:
        backend.release(slot)
    assert torch.equal(one, two)


def test_a_prompt_without_what_the_unet_reads_is_an_error(backend: TorchBackend) -> None:
    sound = row(backend, 0)
    for pooled in (None, torch.zeros(3)):
        prompt = EncodedPrompt(embedding=sound.prompt.embedding, dropped="", pooled=pooled)
        with pytest.raises(ValueError, match="pooled embedding"):
            backend.place(replace(sound, prompt=prompt))
    slot = backend.place(sound)
    assert slot == 0, "a row that could not be placed holds nothing"
    backend.release(slot)


def test_warm_up_runs(backend: TorchBackend) -> None:
    measured = calibrate(backend, (1, 2), time.monotonic, decode_batch=2, patience_ticks=1, reference_batch=2)
    assert set(measured.tick_seconds) == {1, 2}


def test_time_ids_are_diffusers(root: Path) -> None:
    pipe = open_pipeline(root)
    theirs = pipe._get_add_time_ids((96, 64), (0, 0), (96, 64), torch.float32, text_encoder_projection_dim=16)
    prompt = EncodedPrompt(embedding=torch.zeros(77, 64), dropped="", pooled=torch.zeros(16))
    added = AddedInputs(text_embeds=16)
    for placed in (RowConditioning(prompt=prompt, size=(96, 64)), RowConditioning(prompt=prompt)):
        assert torch.equal(added.vectors(placed, (96, 64))["time_ids"], theirs[0])
    assert AddedInputs().vectors(RowConditioning(prompt=prompt), (96, 64)) == {}


@pytest.mark.parametrize("width", [16, 17, 256])
def test_guidance_is_embedded_as_in_the_pipeline(root: Path, width: int) -> None:
    pipe = open_pipeline(root)
    for scale in (0.0, 1.0, 4.3, 8.5):
        theirs = pipe.get_guidance_scale_embedding(torch.tensor(scale - 1).repeat(1), embedding_dim=width)
        assert torch.equal(guidance_embedding(scale, width), theirs[0])


def test_bfloat16_is_close(tmp_path: Path, root: Path, backend: TorchBackend) -> None:
    lcm = build_tiny_model(tmp_path / "lcm", LCM)
    for at in (root, lcm):
        exact = TorchBackend(load_model(at), TorchSettings(buckets=(4,), capacity=4))
        half = TorchBackend(load_model(at, dtype=torch.bfloat16), TorchSettings(buckets=(4,), capacity=4))
        sample, step = inputs(4)
        noise = []
        for one in (exact, half):
            slots = [one.place(row(one, index)) for index in range(4)]
            noise.append(one.predict_noise(slots, sample, step, 4))
        assert (noise[1] - noise[0]).norm() / noise[0].norm() < 0.05
