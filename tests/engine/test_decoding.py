"""When finished latents go through the VAE."""

from __future__ import annotations

import pytest

from engine.loop.decoding import DecodePlan, plan_decoding
from engine.protocol.messages import Finished, ImageReady
from tests.engine.bench import Bench, job


def order(bench: Bench) -> list[str]:
    return [
        "tick" if call == "tick" else f"decode {what}"
        for call, what in bench.backend.calls
        if call != "prompts"
    ]


def test_a_full_batch_goes_at_once() -> None:
    bench = Bench(plan=DecodePlan(batch=2, patience_ticks=9))
    bench.tell(job("long", steps=6, guidance_scale=1.0))
    bench.tell(job("pair", steps=2, guidance_scale=1.0, seeds=(1, 2)))
    bench.turn(3)
    assert order(bench) == ["tick", "tick", "decode 2", "tick"]


def test_a_lone_image_waits_for_company_but_not_long() -> None:
    bench = Bench(plan=DecodePlan(batch=4, patience_ticks=2))
    bench.tell(job("long", steps=9, guidance_scale=1.0))
    bench.tell(job("short", steps=1, guidance_scale=1.0))
    bench.turn(5)
    assert order(bench) == ["tick", "tick", "tick", "decode 1", "tick", "tick"]


def test_the_last_image_is_decoded_as_soon_as_nothing_else_runs() -> None:
    bench = Bench(plan=DecodePlan(batch=4, patience_ticks=50))
    bench.tell(job(steps=2))
    bench.turn(3)
    assert order(bench) == ["tick", "tick", "decode 1"]


def test_what_finished_together_goes_before_the_next_tick() -> None:
    bench = Bench(plan=DecodePlan(batch=2, patience_ticks=9))
    bench.tell(job("long", "long", steps=12, guidance_scale=1.0))
    for number in range(4):
        bench.tell(job(str(number), steps=2, guidance_scale=1.0))
    bench.turn(3)
    assert order(bench) == ["tick", "tick", "decode 2", "decode 2", "tick"]


def test_images_of_few_steps_do_not_pile_up() -> None:
    bench = Bench(plan=DecodePlan(batch=1, patience_ticks=0))
    for number in range(20):
        bench.tell(job(f"j{number}", steps=1, guidance_scale=1.0, seeds=tuple(range(8))))
        bench.turn()
        assert not bench.loop._delivery._decodes
    assert len(bench.messages(ImageReady)) == 160


def test_deterministic_images_are_decoded_one_by_one() -> None:
    bench = Bench(plan=DecodePlan(batch=4, patience_ticks=0))
    bench.tell(job("d", steps=2, deterministic=True, seeds=(1, 2)))
    bench.tell(job("e", steps=2, seeds=(3, 4)))
    bench.finish()
    assert sorted(call for call in order(bench) if call.startswith("decode")) == [
        "decode 1",
        "decode 1",
        "decode 2",
    ]


def test_other_shapes_wait_for_their_own_batch() -> None:
    bench = Bench(plan=DecodePlan(batch=4, patience_ticks=0))
    bench.tell(job("a", steps=1, guidance_scale=1.0))
    bench.tell(job("b", steps=1, guidance_scale=1.0, width=32))
    bench.finish()
    assert len(bench.messages(Finished)) == 2


@pytest.mark.parametrize(
    ("decodes", "stall", "batch"),
    [
        ({1: 1.0, 2: 2.0, 4: 4.0}, 100.0, 1),
        ({1: 1.0, 2: 1.2, 4: 1.6}, 100.0, 4),
        ({1: 1.0, 2: 1.2, 4: 1.6}, 1.3, 2),
        ({1: 1.0, 2: 1.2, 4: 1.6}, 0.1, 1),
        ({1: 1.0}, 1.0, 1),
    ],
)
def test_the_plan_follows_measured_times(decodes: dict[int, float], stall: float, batch: int) -> None:
    assert plan_decoding(decodes, stall=stall, patience_ticks=2).batch == batch
