"""Prompts and references: batches, caches, single failures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.backends.base import EncodedPrompt
from engine.config import EngineConfig
from engine.loop.errors import Fault
from engine.loop.prompts import MAX_BATCH, PromptCache, PromptDesk, PromptKey
from engine.protocol.framing import Tensor
from engine.protocol.messages import (
    EncodeReference,
    FailureReason,
    Finished,
    ReferenceEncoded,
    ReferenceFailed,
    TickReport,
)
from tests.engine.bench import Bench, job, reference
from tests.engine.fakes import TOKENS, WIDE_TOKENS, FakeBackend, VirtualClock


def picture(value: int) -> Tensor:
    return np.full((4, 4, 3), value, dtype=np.uint8)


def prompt(size: int = 8) -> EncodedPrompt:
    return EncodedPrompt(embedding=torch.zeros(size), dropped="")


def prompts_encoded(bench: Bench) -> list[object]:
    return [what for call, what in bench.backend.calls if call == "prompts"]


def test_newcomers_share_one_call_of_the_text_encoder() -> None:
    bench = Bench()
    for name in ("a", "b", "c"):
        bench.tell(job(name, name, negative_prompt="ugly"))
    bench.finish()
    assert prompts_encoded(bench) == [("a", "ugly", "b", "c")]


def test_images_of_a_job_share_its_prompt_and_a_known_prompt_costs_nothing() -> None:
    bench = Bench()
    bench.tell(job("first", "a man", seeds=(1, 2, 3)))
    bench.finish()
    bench.tell(job("second", "a man"))
    bench.finish()
    assert prompts_encoded(bench) == [("a man", "")]
    assert bench.messages(Finished)[1].encode_prompt_seconds == 0


def test_without_a_cache_prompts_are_encoded_again() -> None:
    bench = Bench(config=EngineConfig(prompt_cache_bytes=0))
    for name in ("first", "second"):
        bench.tell(job(name, "a man"))
        bench.finish()
    assert len(prompts_encoded(bench)) == 2


def test_the_cache_keeps_to_its_bytes_and_drops_the_least_recently_used() -> None:
    cache = PromptCache(110)
    keys = [PromptKey(text, False) for text in "abc"]
    for key in keys:
        cache.put(key, prompt())
    assert cache.bytes == 99
    assert cache.get(keys[0]) is not None
    cache.put(PromptKey("d", False), prompt())
    assert cache.bytes == 99
    assert [cache.get(key) is not None for key in keys] == [True, False, True]
    cache.put(PromptKey("huge", False), prompt(100))
    assert cache.bytes == 99


def test_an_entry_encoded_by_itself_serves_everybody_but_not_the_reverse() -> None:
    cache = PromptCache(1000)
    cache.put(PromptKey("shared", False), prompt())
    cache.put(PromptKey("solo", True), prompt())
    assert cache.get(PromptKey("shared", True)) is None
    assert cache.get(PromptKey("solo", False)) is not None


def test_batches_are_bounded_and_solo_texts_run_by_themselves() -> None:
    backend = FakeBackend(clock=VirtualClock())
    desk = PromptDesk(backend, PromptCache(1 << 20), lambda: True)
    keys = [PromptKey(f"t{number}", False) for number in range(MAX_BATCH + 2)]
    desk.encode([*keys, PromptKey("s", True), keys[0]])
    sizes = [len(texts) for _, texts in backend.calls]  # type: ignore[arg-type]
    assert sizes == [MAX_BATCH, 2, 1]


def test_what_is_cached_holds_no_batch_in_memory() -> None:
    backend = FakeBackend(clock=VirtualClock())
    batch, pooled = torch.zeros(2, 4, 8), torch.zeros(2, 6)
    backend.encode_prompts = lambda texts: [  # type: ignore[method-assign]
        EncodedPrompt(embedding=row, dropped="", pooled=other)
        for row, other in zip(batch, pooled, strict=True)
    ]
    desk = PromptDesk(backend, PromptCache(1 << 20), lambda: True)
    (first, _) = desk.encode([PromptKey("a", False), PromptKey("b", False)]).values()
    assert isinstance(first, EncodedPrompt)
    assert first.embedding.untyped_storage().nbytes() == first.embedding.nbytes
    assert first.pooled is not None
    assert first.pooled.untyped_storage().nbytes() == first.pooled.nbytes


def test_the_pooled_embedding_counts_and_is_checked() -> None:
    cache = PromptCache(1000)
    cache.put(
        PromptKey("a", False), EncodedPrompt(embedding=torch.zeros(8), dropped="", pooled=torch.zeros(4))
    )
    assert cache.bytes == 8 * 4 + 4 * 4 + 1
    backend = FakeBackend(clock=VirtualClock())
    spoilt = torch.tensor([1.0, float("nan")])
    backend.encode_prompts = lambda texts: [  # type: ignore[method-assign]
        EncodedPrompt(embedding=torch.zeros(4, 8), dropped="", pooled=spoilt) for _ in texts
    ]
    (found,) = PromptDesk(backend, cache, lambda: True).encode([PromptKey("b", False)]).values()
    assert isinstance(found, Fault) and found.reason == FailureReason.NUMERICAL


def test_references_that_wait_together_take_one_call() -> None:
    bench = Bench()
    for number in range(3):
        bench.tell(EncodeReference(request_id=str(number)), picture(number))
    bench.turn()
    assert bench.backend.count("images") == 1
    encoded = bench.messages(ReferenceEncoded)
    assert [(message.request_id, message.batch) for message in encoded] == [(str(n), 3) for n in range(3)]
    values = [float(tensor[0, 0]) for tensor in bench.tensors(ReferenceEncoded)]
    assert values == pytest.approx([number / 255 for number in range(3)])
    bench.turn()
    assert bench.messages(TickReport)[-1].encoded_references == 3


def test_every_call_of_the_image_encoder_has_the_same_size() -> None:
    bench = Bench(config=EngineConfig(reference_batch=4))
    for waiting in (1, 3, 4):
        for number in range(waiting):
            bench.tell(EncodeReference(request_id=f"{waiting}-{number}"), picture(number))
        bench.turn()
    assert [what for call, what in bench.backend.calls if call == "images"] == [4, 4, 4]


def test_a_flood_of_references_does_not_hold_up_ticks() -> None:
    bench = Bench(config=EngineConfig(reference_batch=4))
    bench.tell(job(steps=5))
    for number in range(10):
        bench.tell(EncodeReference(request_id=str(number)), picture(number))
    bench.turn(3)
    order = [call for call, _ in bench.backend.calls if call in ("images", "tick")]
    assert order == ["images", "tick"] * 3
    assert len(bench.messages(ReferenceEncoded)) == 10


def test_each_call_of_the_image_encoder_is_for_one_adapter() -> None:
    bench = Bench(config=EngineConfig(reference_batch=3))
    for number, adapter in enumerate(("", "wide", "base", "wide", "")):
        bench.tell(EncodeReference(request_id=str(number), adapter=adapter), picture(number))
    bench.turn(2)
    encoded = bench.messages(ReferenceEncoded)
    assert [(message.request_id, message.batch) for message in encoded] == [
        *(("0", 3), ("2", 3), ("4", 3)),
        *(("1", 2), ("3", 2)),
    ]
    assert [tensor.shape for tensor in bench.tensors(ReferenceEncoded)] == [(TOKENS, 8)] * 3 + [
        (WIDE_TOKENS, 8)
    ] * 2
    bench.tell(EncodeReference(request_id="odd", adapter="nope"), picture(1))
    bench.turn()
    (failed,) = bench.messages(ReferenceFailed)
    assert failed.message == "no adapter 'nope'; the model has base, wide"


def test_a_bad_reference_fails_alone() -> None:
    bench = Bench()
    for name, value in (("good", 1), ("boom", 66), ("nan", 99), ("fine", 2)):
        bench.tell(EncodeReference(request_id=name), picture(value))
    bench.turn()
    assert [message.request_id for message in bench.messages(ReferenceEncoded)] == ["good", "fine"]
    assert {message.request_id for message in bench.messages(ReferenceFailed)} == {"boom", "nan"}


@pytest.mark.parametrize("pixels", [None, np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_what_is_no_picture_of_the_right_size_is_refused(pixels: Tensor | None) -> None:
    bench = Bench()
    bench.tell(EncodeReference(request_id="odd"), pixels)
    bench.turn()
    assert len(bench.messages(ReferenceFailed)) == 1
    assert bench.backend.count("images") == 0


def test_references_are_encoded_while_jobs_run() -> None:
    bench = Bench()
    bench.tell(job(steps=4), reference())
    bench.turn(2)
    bench.tell(EncodeReference(request_id="r"), picture(9))
    bench.turn()
    assert len(bench.messages(ReferenceEncoded)) == 1
