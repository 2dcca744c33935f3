"""The slots of the torch backend: what they hold, for how long, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from engine.backends.base import MAX_REFERENCES, MixedAdaptersError, UnknownAdapterError
from engine.backends.slots import ReferenceTooLongError, SlotError, SlotsExhaustedError
from engine.backends.torch_backend import TorchBackend
from engine.models.model import Model
from tests.backends.rows import TORCH_SETTINGS, conditioning, inputs, row_of


def test_slots_are_held_released_and_reused(backend: TorchBackend) -> None:
    rows = [conditioning(backend, index) for index in range(11)]
    slots = [backend.place(row) for row in rows[:10]]
    assert slots == list(range(10))
    with pytest.raises(SlotsExhaustedError):
        backend.place(rows[10])
    backend.release(7)
    backend.release(3)
    assert backend.place(rows[10]) == 3
    with pytest.raises(SlotError):
        backend.release(7)
    with pytest.raises(SlotError):
        backend.release(99)
    sample, step = inputs(2)
    with pytest.raises(SlotError, match="not taken"):
        backend.predict_noise([0, 7], sample, step, 2)
    with pytest.raises(SlotError, match="twice"):
        backend.predict_noise([0, 0], sample, step, 2)
    with pytest.raises(ValueError, match="do not fit"):
        backend.predict_noise([0, 1], sample, step, 1)
    with pytest.raises(ValueError, match="do not fit"):
        backend.predict_noise([0, 1], sample, step, 99)


def test_a_row_that_a_slot_holds_or_held_last_is_not_projected_again(
    model: Model, backend: TorchBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    projected: list[torch.Tensor] = []
    project = backend._text_kv.project

    def counting(embedding: torch.Tensor) -> torch.Tensor:
        projected.append(embedding)
        return project(embedding)

    monkeypatch.setattr(backend, "_text_kv", SimpleNamespace(project=counting))
    pair = [conditioning(backend, index) for index in (0, 2)]  # with a reference and without
    slots = [backend.place(row) for _ in range(4) for row in pair]
    assert len(projected) == 2
    sample, step = inputs(1)
    for first, slot in zip(slots[:2] * 4, slots, strict=True):
        found = backend.predict_noise([slot], sample, step, 2)
        assert torch.equal(found, backend.predict_noise([first], sample, step, 2))
    for slot in slots:
        backend.release(slot)
    again = [backend.place(row) for row in pair]
    assert len(projected) == 2 and again == slots[:2]


def test_a_reused_slot_is_not_served_from_a_stale_copy(backend: TorchBackend) -> None:
    sample, step = inputs(1)
    slots = [backend.place(conditioning(backend, index)) for index in range(10)]
    old = backend.predict_noise([slots[9]], sample, step, 4)
    backend.release(slots[9])
    assert backend.place(conditioning(backend, 0)) == slots[9]
    new = backend.predict_noise([slots[9]], sample, step, 4)
    assert torch.equal(new, backend.predict_noise([slots[0]], sample, step, 4))
    assert not torch.equal(new, old)


def test_rows_may_bring_different_numbers_of_references(model: Model) -> None:
    one = TorchBackend(model, replace(TORCH_SETTINGS, max_references=1))
    three = TorchBackend(model, replace(TORCH_SETTINGS, max_references=3))
    rows = [conditioning(one, index) for index in range(3)]
    tokens = rows[0].references[0].tokens
    sample, step = inputs(4)
    expected = one.predict_noise([one.place(row) for row in rows], sample[:3], step[:3], 4)
    doubled = row_of(one, rows[0].prompt, tokens, tokens)
    slots = [three.place(row) for row in (*rows, doubled)]
    sample[3], step[3] = sample[0], step[0]
    found = three.predict_noise(slots, sample, step, 4)
    # The neighbour with two references costs the others no bit.
    assert torch.equal(found[:3], expected)
    # Naming a reference twice changes nothing: a softmax over doubled tokens is the same mean.
    torch.testing.assert_close(found[3:], expected[:1], rtol=0, atol=5e-6)
    with pytest.raises(ReferenceTooLongError):
        three.place(row_of(one, rows[0].prompt, *[tokens] * 4))
    with pytest.raises(ReferenceTooLongError):
        one.place(doubled)


def test_a_row_takes_references_of_one_known_adapter(backend: TorchBackend) -> None:
    row = conditioning(backend, 0)
    (known,) = row.references
    other = replace(known, adapter="other")
    with pytest.raises(UnknownAdapterError, match="no adapter 'other'; the model has base"):
        backend.place(replace(row, references=(other,)))
    with pytest.raises(UnknownAdapterError):
        backend.encode_images(torch.zeros(1, 32, 32, 3, dtype=torch.uint8), "other")
    with pytest.raises(MixedAdaptersError, match="base, other"):
        replace(row, references=(known, other))


def test_memory_that_no_row_has_used_is_never_touched(model: Model) -> None:
    backend = TorchBackend(model, TORCH_SETTINGS)
    tokens, room = backend.facts.reference_tokens, backend._rows.slots.kv_ip
    assert room.shape[1] == MAX_REFERENCES * tokens
    backend._rows.slots.kv_ip[:, tokens:] = torch.nan  # stands for pages that the system has not provided
    backend._rows._staging.kv_ip[:, tokens:] = torch.nan
    sample, step = inputs(4)
    rows = [conditioning(backend, index) for index in (0, 2, 1, 3)]
    slots = [backend.place(row) for row in rows]
    high = [backend.place(row) for row in rows]
    found = backend.predict_noise(slots, sample, step, 4)
    assert found.isfinite().all() and torch.equal(found, backend.predict_noise(high, sample, step, 4))
    for buffer in (backend._rows.slots.kv_ip, backend._rows._staging.kv_ip):
        assert buffer[:, tokens:].isnan().all()
