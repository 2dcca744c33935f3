"""A row of a mixed batch equals the same row alone, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from engine.samplers import (
    STATE_PLANES,
    BankedTable,
    CoefficientBank,
    NoiseSource,
    advance,
    initial_state,
    model_input,
    sampler_names,
)

from .oracle import SD15, SHAPE, linear_model, run_table, schedule_of


@dataclass(slots=True, kw_only=True)
class Image:
    banked: BankedTable
    source: NoiseSource
    state: Tensor
    step: int = 0
    after: list[Tensor] = field(default_factory=list)


def start(bank: CoefficientBank, name: str, steps: int, seed: int) -> Image:
    banked, source = bank.table(name, steps), NoiseSource(seed, SHAPE)
    latents = source.initial_latents(banked.table.init_noise_sigma)
    return Image(banked=banked, source=source, state=initial_state(latents[None])[0])


def tick(bank: CoefficientBank, images: list[Image]) -> None:
    """Advance all images by one step, as the engine does."""
    states = torch.stack([image.state for image in images])
    step = bank.gather(torch.tensor([image.banked.first_row + image.step for image in images]))
    prediction = linear_model()(model_input(states, step.input_scale), step.timestep)
    noise = torch.zeros(len(images), *SHAPE)
    for row, image in enumerate(images):
        if image.banked.table.draws_noise[image.step]:
            noise[row] = image.source.draw()
    planes = max(image.banked.table.planes for image in images)
    states = advance(states, prediction, noise, step.matrix, planes)
    for row, image in enumerate(images):
        image.state, image.step = states[row].clone(), image.step + 1
        image.after.append(image.state)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_mixed_batch_equals_each_alone(prediction_type: str) -> None:
    schedule = schedule_of({**SD15, "prediction_type": prediction_type})
    bank = CoefficientBank(schedule)
    jobs = [(name, steps, 100 + steps) for steps in (1, 4, 9, 15) for name in sampler_names()]
    waiting = list(jobs)
    running: list[Image] = []
    done: list[Image] = []
    while waiting or running:
        # Images join two at a time at the front, so rows move and meet other neighbours at other steps.
        running = [start(bank, *waiting.pop(0)) for _ in range(min(2, len(waiting)))] + running
        tick(bank, running)
        done += [image for image in running if image.step == image.banked.table.steps]
        running = [image for image in running if image.step < image.banked.table.steps]
    assert len(done) == len(jobs)
    for image in done:
        table = image.banked.table
        alone = run_alone(table.sampler, table.steps, image.source.seed, prediction_type)
        for batched, single in zip(image.after, alone, strict=True):
            assert torch.equal(batched, single), table.sampler


def run_alone(name: str, steps: int, seed: int, prediction_type: str) -> list[Tensor]:
    bank = CoefficientBank(schedule_of({**SD15, "prediction_type": prediction_type}))
    image = start(bank, name, steps, seed)
    while image.step < steps:
        tick(bank, [image])
    return image.after


def test_a_banked_table_equals_the_table() -> None:
    schedule = schedule_of(SD15)
    bank = CoefficientBank(schedule, dtype=torch.float64)
    table = bank.table("unipc", 7).table
    states = run_table(table, 4, torch.float64)
    entry = bank.table("unipc", 7)
    assert entry is bank.table("unipc", 7)
    step = bank.gather(torch.arange(entry.first_row, entry.first_row + 7))
    assert torch.equal(step.matrix, torch.tensor(table.matrix))
    assert torch.equal(step.timestep, torch.tensor(table.timesteps).double())
    assert torch.equal(step.x0, torch.tensor(table.x0))
    assert len(states) == 7


def test_a_bank_keeps_rows_when_it_grows() -> None:
    bank = CoefficientBank(schedule_of(SD15), dtype=torch.float64)
    entries = [bank.table(name, steps) for steps in (50, 30, 3) for name in sampler_names()]
    for entry in entries:
        rows = bank.gather(torch.arange(entry.first_row, entry.first_row + entry.table.steps))
        assert torch.equal(rows.matrix, torch.tensor(entry.table.matrix))
        assert torch.equal(rows.input_scale, torch.tensor(entry.table.input_scale))


@pytest.mark.parametrize("size", [(4, 16, 16), (4, 13, 7), (4, 96, 96)])
def test_rows_do_not_depend_on_batch_size_or_threads(size: tuple[int, int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    batch = 5
    state = torch.randn(batch, STATE_PLANES, *size, generator=generator)
    prediction, noise = torch.randn(2, batch, *size, generator=generator)
    matrix = torch.randn(batch, 4, 6, generator=generator)
    torch.set_num_threads(2)
    together = advance(state, prediction, noise, matrix)
    torch.set_num_threads(1)
    for row in range(batch):
        one = slice(row, row + 1)
        alone = advance(state[one], prediction[one], noise[one], matrix[one])
        assert torch.equal(together[one], alone)


def test_advance_leaves_its_arguments_alone() -> None:
    state, prediction = torch.ones(2, STATE_PLANES, *SHAPE), torch.ones(2, *SHAPE)
    matrix = torch.full((2, 4, 6), 0.5)
    assert torch.equal(advance(state, prediction, None, matrix), torch.full_like(state, 2.5))
    assert state.eq(1).all()
    assert prediction.eq(1).all()


def test_half_predictions_advance_float32_states() -> None:
    state, prediction = torch.ones(1, STATE_PLANES, *SHAPE), torch.ones(1, *SHAPE, dtype=torch.bfloat16)
    assert advance(state, prediction, None, torch.ones(1, 4, 6)).dtype == torch.float32


@pytest.mark.parametrize("name", sampler_names())
def test_planes_that_no_step_uses_are_left_out_and_nothing_else(name: str) -> None:
    bank = CoefficientBank(schedule_of(SD15))
    table = bank.table(name, 8).table
    assert table.planes == {"dpmpp_2m": 2, "dpmpp_2m_karras": 2, "unipc": 4}.get(name, 1)
    generator = torch.Generator().manual_seed(3)
    prediction, noise = (torch.randn(1, *SHAPE, generator=generator) for _ in range(2))
    state = torch.zeros(1, STATE_PLANES, *SHAPE)
    state[:, : table.planes] = torch.randn(1, table.planes, *SHAPE, generator=generator)
    for matrix in torch.tensor(table.matrix, dtype=torch.float32):
        few = advance(state, prediction, noise, matrix[None], table.planes)
        assert torch.equal(few, advance(state, prediction, noise, matrix[None]))
