"""What a row's K/V are computed from, and what is copied from a slot that has it already."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
import torch

from engine.backends.base import EncodedPrompt, PlacedReference, RowConditioning, UnknownAdapterError
from engine.backends.slots import SlotBuffers, Staging, single_seats
from engine.backends.slotted import RowProjection, SlottedRows
from engine.models.regions import WHOLE

TOKENS, WIDTH = 3, 4


@dataclass
class Counted:
    """Rows in eight slots, and how often a prompt and a reference were projected.

    ``embedded`` is for a model that reads the guidance scale as a vector.
    """

    embedded: bool = False
    prompts: list[float] = field(default_factory=list)
    references: int = 0

    def __post_init__(self) -> None:
        slots = SlotBuffers(
            capacity=8,
            text_tokens=TOKENS,
            ip_tokens=2,
            width=WIDTH,
            masked=True,
            dtype=torch.float32,
            vectors={"timestep_cond": 1} if self.embedded else {},
        )
        projection = RowProjection(
            text=self._text,
            reference=self._reference,
            adapters=("one", "three"),
            vectors=lambda row: (
                {"timestep_cond": torch.tensor([row.guidance_scale])} if self.embedded else {}
            ),
        )
        self.rows = SlottedRows(slots, 8, projection, masks=lambda row: {})

    def _text(self, prompt: EncodedPrompt) -> torch.Tensor:
        self.prompts.append(prompt.embedding[0, 0].item())
        return prompt.embedding * 10

    def _reference(self, reference: PlacedReference) -> torch.Tensor:
        self.references += 1
        return reference.tokens


def prompt(value: float) -> EncodedPrompt:
    return EncodedPrompt(embedding=torch.full((TOKENS, WIDTH), value), dropped="")


def row(of: EncodedPrompt, *tokens: float, adapter: str = "one") -> RowConditioning:
    references = tuple(
        PlacedReference(tokens=torch.full((1, WIDTH), value), adapter=adapter, scales=(1.0,))
        for value in tokens
    )
    return RowConditioning(prompt=of, references=references)


def test_the_same_row_is_copied_whole() -> None:
    made = Counted()
    one = row(prompt(1.0), 5.0)
    first, second = made.rows.place(one), made.rows.place(one)
    assert (made.prompts, made.references) == ([1.0], 1)
    for held in zip(made.rows.slots.values(first), made.rows.slots.values(second), strict=True):
        assert torch.equal(*held)


def test_a_row_alike_has_the_same_content() -> None:
    """As the negative prompts of most images, each a row of its own request; what no vector tells does not count."""
    made = Counted()
    one = row(prompt(1.0), 5.0)
    slots = [made.rows.place(each) for each in (one, replace(one, guidance_scale=3.0, size=(64, 64)))]
    assert (made.prompts, made.references) == ([1.0], 1)
    assert made.rows.slots.contents[slots[0]] == made.rows.slots.contents[slots[1]]


ONE = row(prompt(1.0), 5.0)


@pytest.mark.parametrize(
    "other",
    [
        replace(ONE, prompt=prompt(1.0)),
        replace(ONE, size=(64, 64)),
        replace(ONE, guidance_scale=3.0),
        replace(ONE, references=()),
        replace(ONE, references=ONE.references * 2),
        replace(ONE, references=(replace(ONE.references[0], tokens=torch.full((1, WIDTH), 5.0)),)),
        replace(ONE, references=(replace(ONE.references[0], scales=(0.5,)),)),
        replace(ONE, references=(replace(ONE.references[0], adapter="three"),)),
        replace(ONE, references=(replace(ONE.references[0], region=WHOLE),)),
    ],
    ids=["prompt", "size", "guidance", "none", "more", "tokens", "scales", "adapter", "region"],
)
def test_a_row_that_differs_in_anything_has_another_content(other: RowConditioning) -> None:
    made = Counted(embedded=True)
    slots = [made.rows.place(each) for each in (ONE, other)]
    assert made.rows.slots.contents[slots[0]] != made.rows.slots.contents[slots[1]]


def test_a_free_slot_that_still_holds_a_row_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Counted()
    slots = [made.rows.place(each) for each in (row(prompt(2.0)), ONE, row(prompt(3.0)))]
    for slot in slots:
        made.rows.release(slot)
    monkeypatch.setattr(SlotBuffers, "_write", None)
    assert made.rows.place(replace(ONE)) == slots[1]
    assert (made.prompts, made.references) == ([2.0, 1.0, 3.0], 1)


def test_a_slot_whose_writing_failed_holds_nothing_and_is_free() -> None:
    """It failed in the middle: the prompt is another's by then."""
    made = Counted(embedded=True)
    slot = made.rows.place(ONE)
    made.rows.release(slot)
    wrong = made.rows.slots.vectors.pop("timestep_cond")
    made.rows.slots.vectors["other"] = wrong
    with pytest.raises(KeyError):
        made.rows.place(row(prompt(2.0), 6.0, 7.0))
    made.rows.slots.vectors = {"timestep_cond": wrong}
    assert made.rows.place(ONE) == slot
    text, reference = made.rows.slots.values(slot)
    assert torch.equal(text, torch.full((TOKENS, WIDTH), 10.0))
    assert reference is not None and torch.equal(reference, ONE.references[0].tokens)
    assert not made.rows.slots.kv_ip[slot, 1:].any(), "and nothing is left of the other's second reference"


def no_zeros(_: torch.Tensor) -> torch.Tensor:
    raise MemoryError


def test_of_references_that_were_half_written_no_other_row_reads_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = Counted()
    rows = made.rows
    plain, two = row(prompt(1.0)), row(prompt(2.0), 6.0, 7.0)
    kept, slot = rows.place(plain), rows.place(two)
    staging = Staging(rows.slots, 1)
    staging.arrange([kept], [(0,)])
    with monkeypatch.context() as broken:
        broken.setattr(torch.Tensor, "zero_", no_zeros)  # which comes after the copy
        with pytest.raises(MemoryError):
            staging.arrange([slot], [(0,)])
        with pytest.raises(MemoryError):
            rows.place(row(prompt(3.0), 8.0, 9.0))
    staging.arrange([kept], [(0,)])
    assert not staging.kv_ip[0].any()
    assert not rows.slots.kv_ip[rows.place(row(prompt(4.0)))].any()


def test_a_free_slot_keeps_no_masks() -> None:
    rows = Counted().rows
    boxed = replace(ONE, references=(replace(ONE.references[0], region=WHOLE),))
    slot = rows.place(boxed)
    assert rows.regions(slot) is not None
    rows.release(slot)
    assert rows.regions(slot) is None
    assert rows.regions(rows.place(boxed)) is not None


def test_a_position_that_a_copy_failed_to_fill_holds_nothing() -> None:
    made = Counted(embedded=True)
    slots = [made.rows.place(each) for each in (ONE, row(prompt(2.0), 6.0, 7.0))]
    staging = Staging(made.rows.slots, 1)
    staging.arrange(slots[:1], [(0,)])
    vectors, staging.vectors = staging.vectors, {"other": torch.zeros(1, 1)}
    with pytest.raises(KeyError):
        staging.arrange(slots[1:], [(0,)])
    staging.vectors = vectors
    staging.arrange(slots[:1], [(0,)])
    for name in ("kv_text", "kv_ip", "ip_mask"):
        assert torch.equal(getattr(staging, name)[0], getattr(made.rows.slots, name)[slots[0]])


def test_rows_of_one_prompt_share_its_projection_and_keep_their_references() -> None:
    made = Counted()
    negative = prompt(2.0)
    slots = [made.rows.place(row(negative, value)) for value in (5.0, 6.0)]
    assert (made.prompts, made.references) == ([2.0], 2)
    for slot, value in zip(slots, (5.0, 6.0), strict=True):
        text, reference = made.rows.slots.values(slot)
        assert torch.equal(text, torch.full((TOKENS, WIDTH), 20.0))
        assert reference is not None
        assert torch.equal(reference, torch.full((1, WIDTH), value))


def test_a_prompt_that_left_its_slot_is_projected_again() -> None:
    made = Counted()
    negative = prompt(2.0)
    slot = made.rows.place(row(negative))
    made.rows.release(slot)
    made.rows.place(row(prompt(3.0)))
    made.rows.place(row(negative))
    assert made.prompts == [2.0, 3.0, 2.0]


def test_an_equal_prompt_that_was_encoded_by_itself_is_another() -> None:
    made = Counted()
    made.rows.place(row(prompt(1.0)))
    made.rows.place(row(prompt(1.0)))
    assert made.prompts == [1.0, 1.0]


def test_an_unknown_adapter_is_refused_although_the_prompt_is_known() -> None:
    made = Counted()
    known = prompt(1.0)
    made.rows.place(row(known))
    with pytest.raises(UnknownAdapterError):
        made.rows.place(row(known, 5.0, adapter="two"))


SEATS = {8: [(0, 4), (1, 5), (2, 6), (3, 7)], 4: [(0, 2), (1, 3)]}


def test_units_keep_their_seats_and_every_position_holds_its_row() -> None:
    """Through other buckets, single seats, a unit of one row beside a stale second, and a slot that is written anew."""
    made = Counted()
    slots = [made.rows.place(row(prompt(float(value)), value)) for value in range(8)]
    staging = Staging(made.rows.slots, 8)

    def arranged(units: list[list[int]], seats: list[tuple[int, ...]]) -> list[int]:
        rows = [index for unit in units for index in unit]
        local = iter(range(len(rows)))
        places = staging.arrange(
            [slots[index] for index in rows], seats, [[next(local) for _ in unit] for unit in units]
        )
        for index, place in zip(rows, places, strict=True):
            assert torch.equal(staging.kv_text[place], made.rows.slots.kv_text[slots[index]])
            assert torch.equal(staging.kv_ip[place], made.rows.slots.kv_ip[slots[index]])
        assert len(set(places)) == len(places)
        return places

    first = arranged([[0, 1], [2, 3], [4]], SEATS[8])
    assert first == [0, 4, 1, 5, 2]
    assert arranged([[6, 7], [4], [2, 3]], SEATS[8]) == [0, 4, 2, 1, 5], "who stays keeps the seat"
    assert arranged([[4, 5], [6]], SEATS[8]) == [2, 6, 0]
    arranged([[2, 3], [6]], SEATS[4])
    arranged([[index] for index in (0, 3, 5)], single_seats(4))
    arranged([[2, 3], [4, 5], [0]], SEATS[8])
    made.rows.release(slots[3])
    slots[3] = made.rows.place(row(prompt(30.0), 30.0))
    arranged([[2, 3], [4, 5], [0]], SEATS[8])


def test_units_alike_have_a_seat_each_and_stay_in_them() -> None:
    """As those of a request of several images."""
    made = Counted()
    one, negative = row(prompt(1.0)), row(prompt(2.0))
    slots = [made.rows.place(each) for each in (one, one, negative, negative)]
    staging = Staging(made.rows.slots, 8)
    for _ in range(2):
        assert staging.arrange(slots, SEATS[8], [[0, 2], [1, 3]]) == [0, 1, 4, 5]
    assert staging.arrange(slots, SEATS[8], [[1, 3], [0, 2]]) == [1, 0, 5, 4], "one is as good as the other"


def test_a_unit_of_more_rows_than_a_seat_is_a_bug() -> None:
    made = Counted()
    slots = [made.rows.place(row(prompt(1.0))) for _ in range(3)]
    with pytest.raises(AssertionError, match="more rows than a seat"):
        Staging(made.rows.slots, 8).arrange(slots, SEATS[8], [[0, 1, 2]])
