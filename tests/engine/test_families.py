"""What the loop and the announcement make of a model's family."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.__main__ import main
from engine.backends.base import EncodedPrompt, RowConditioning
from engine.config import EngineConfig
from engine.loop.announcement import model_info
from engine.models.lora_choice import LoraChoice
from engine.protocol.messages import Finished
from tests.engine.bench import Bench, job, reference
from tests.engine.fakes import FACTS


def rows_of(bench: Bench) -> list[RowConditioning]:
    return [row for slot, row in sorted(bench.backend.rows.items()) if slot not in bench.idle_slots]


def test_a_model_that_takes_its_guidance_as_an_input_has_one_row_an_image() -> None:
    bench = Bench()
    bench.backend.facts = replace(FACTS, guidance_embedded=True)
    bench.tell(job(guidance_scale=8.0, negative_prompt="dark"))
    bench.turn()
    (row,) = rows_of(bench)
    assert row.guidance_scale == 8.0
    bench.finish()
    assert {(bucket, len(texts)) for bucket, texts in bench.backend.ticks()} == {(1, 1)}
    assert len(bench.messages(Finished)) == 1


@pytest.mark.parametrize(("zeros", "negative"), [(True, ""), (True, "dark"), (False, "")])
def test_sdxls_empty_negative_prompt_is_zeros(
    zeros: bool, negative: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    zeroed = EncodedPrompt(embedding=torch.zeros(4, 8), dropped="")
    # The fake's own embedding of an empty text is zeros already.
    monkeypatch.setattr(EncodedPrompt, "zeroed", lambda prompt: zeroed)
    bench = Bench()
    bench.backend.facts = replace(FACTS, zero_empty_negative=zeros)
    bench.tell(job(guidance_scale=5.0, negative_prompt=negative, width=32, height=16), reference())
    bench.turn()
    positive, unconditional = rows_of(bench)
    assert positive.size == unconditional.size == (16, 32)
    assert positive.prompt is not zeroed
    assert (unconditional.prompt is zeroed) == (zeros and not negative)


def test_zeros_keep_the_shapes() -> None:
    prompt = EncodedPrompt(embedding=torch.ones(4, 8), dropped="x", pooled=torch.ones(3))
    zeros = prompt.zeroed()
    assert zeros.dropped == "" and zeros.pooled is not None
    assert not zeros.embedding.any() and not zeros.pooled.any()
    assert zeros.embedding.shape == (4, 8) and zeros.pooled.shape == (3,)
    assert EncodedPrompt(embedding=torch.ones(4, 8), dropped="").zeroed().pooled is None


def test_the_zeros_of_a_prompt_are_one_object() -> None:
    """So that all rows of an empty negative prompt are known to be conditioned alike."""
    one, other = (EncodedPrompt(embedding=torch.ones(4, 8), dropped="") for _ in range(2))
    assert one.zeroed() is one.zeroed()
    assert one.zeroed() is not other.zeroed()


EULER = {"_class_name": "EulerDiscreteScheduler"}
TRAILING = {"timestep_spacing": "trailing"}


@pytest.mark.parametrize(
    ("scheduler", "changes", "expected"),
    [
        ({"_class_name": "PNDMScheduler"}, {}, ("dpmpp_2m", 20, 5.0)),
        ({**EULER, "timestep_spacing": "leading"}, {}, ("euler", 20, 5.0)),
        # Turbo and Lightning; a v-prediction model with trailing timesteps is none of them
        ({**EULER, **TRAILING}, {}, ("euler", 4, 1.0)),
        ({"_class_name": "EulerAncestralDiscreteScheduler", **TRAILING}, {}, ("euler_ancestral", 4, 1.0)),
        ({**EULER, **TRAILING}, {"prediction_type": "v_prediction"}, ("euler", 20, 5.0)),
        ({"_class_name": "DDIMScheduler", **TRAILING}, {}, ("ddim", 20, 5.0)),
        # LCM, distilled with its guidance as an input or without
        ({"_class_name": "LCMScheduler"}, {}, ("lcm", 4, 1.0)),
        ({"_class_name": "LCMScheduler"}, {"guidance_embedded": True}, ("lcm", 4, 8.5)),
        # limner.json overrules
        ({**EULER, **TRAILING}, {"default_steps": 30, "default_guidance_scale": 7.0}, ("euler", 30, 7.0)),
        ({"_class_name": "PNDMScheduler"}, {"default_steps": 2}, ("dpmpp_2m", 2, 5.0)),
    ],
)
def test_defaults_come_from_what_the_model_was_saved_with(
    scheduler: dict[str, object], changes: dict[str, Any], expected: tuple[str, int, float]
) -> None:
    info = model_info(replace(FACTS, scheduler_config=scheduler, **changes))
    assert (info.default_sampler, info.default_steps, info.default_guidance_scale) == expected


def test_loras_are_named_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[EngineConfig] = []
    monkeypatch.setattr("engine.__main__._connect", lambda options: None)
    monkeypatch.setattr("os.dup2", lambda *_: None)
    monkeypatch.setattr("engine.loop.process.serve_process", lambda config, _: given.append(config) or 0)
    arguments = ["serve", "--socket-fd", "3"]
    assert main(arguments) == 0
    assert main([*arguments, "--lora", "/a.safetensors", "--lora", "/b.safetensors:0.5"]) == 0
    expected = (
        LoraChoice(path=Path("/a.safetensors")),
        LoraChoice(path=Path("/b.safetensors"), scale=0.5),
    )
    assert [config.loras for config in given] == [(), expected]
    with pytest.raises(SystemExit):
        main([*arguments, "--lora", "/a.safetensors:nan"])
