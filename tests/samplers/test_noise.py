"""Seeds and draws equal those of a diffusers pipeline with a generator for each image."""

from __future__ import annotations

import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor

from engine.samplers import NoiseSource, SeedOutOfRangeError, compile_table, image_seed, sampler_names

from .oracle import SD15, SHAPE, run_oracle, schedule_of

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize("name", sampler_names())
def test_draws_as_often_as_diffusers(name: str) -> None:
    table, source = compile_table(name, 6, schedule_of(SD15)), NoiseSource(11, SHAPE)
    source.initial_latents(table.init_noise_sigma)
    for draws in table.draws_noise:
        if draws:
            source.draw()
    end = run_oracle(name, SD15, 6, seed=11).generator_state
    continued = torch.Generator()
    continued.set_state(end)
    assert torch.equal(source.draw(), torch.randn(SHAPE, generator=continued))


def test_only_ancestral_and_lcm_draw() -> None:
    tables = {name: compile_table(name, 4, schedule_of(SD15)) for name in sampler_names()}
    drawing = {name: table.draws_noise.tolist() for name, table in tables.items() if table.draws_noise.any()}
    assert drawing == {"euler_ancestral": [True] * 4, "lcm": [True, True, True, False]}
    for table in tables.values():
        assert not table.matrix[~table.draws_noise, :, 5].any()


@pytest.mark.parametrize("size", [SHAPE, (4, 64, 64), (4, 1, 3)])
def test_draws_equal_those_of_a_batch_with_a_generator_an_image(size: tuple[int, int, int]) -> None:
    seeds = [image_seed(7, index) for index in range(3)]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    sources = [NoiseSource(seed, size) for seed in seeds]
    for _ in range(3):
        expected = randn_tensor((3, *size), generator=generators, dtype=torch.float32)
        assert torch.equal(torch.stack([source.draw() for source in sources]), expected)


def test_first_latents_are_scaled() -> None:
    assert torch.equal(NoiseSource(5, SHAPE).initial_latents(3.0), 3.0 * NoiseSource(5, SHAPE).draw())


def test_image_seeds_count_up_and_wrap() -> None:
    assert [image_seed(40, index) for index in range(3)] == [40, 41, 42]
    assert image_seed(2**63 - 1, 1) == 0


def test_an_image_can_be_made_again_alone() -> None:
    assert torch.equal(
        NoiseSource(image_seed(40, 2), SHAPE).draw(), NoiseSource(image_seed(42, 0), SHAPE).draw()
    )


def test_torch_reads_the_low_32_bits_of_a_seed() -> None:
    assert torch.equal(NoiseSource(5, SHAPE).draw(), NoiseSource(5 + 2**32, SHAPE).draw())


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_refuses_seeds_out_of_range(seed: int) -> None:
    for make in (lambda: NoiseSource(seed, SHAPE), lambda: image_seed(seed, 0)):
        with pytest.raises(SeedOutOfRangeError) as raised:
            make()
        assert (raised.value.field, raised.value.limit) == ("seed", "0..2**63-1")


def test_refuses_a_negative_image_index() -> None:
    with pytest.raises(SeedOutOfRangeError) as raised:
        image_seed(0, -1)
    assert raised.value.field == "image_index"
