"""Rows in slots: what every backend does between ``place`` and ``predict_noise``, whatever computes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from typing import Self

import torch

from engine.backends.base import (
    MAX_REFERENCES,
    EncodedPrompt,
    PlacedReference,
    RowConditioning,
    UnknownAdapterError,
)
from engine.backends.slots import SlotBuffers, Staging, single_seats
from engine.models.regions import LevelMasks


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotSettings:
    """What may be chosen about any backend: batch sizes in rows, rows that may be placed at once, references of a row.

    A backend's own settings add to it and say which buckets suit it.
    """

    buckets: tuple[int, ...]
    capacity: int = 64
    max_references: int = MAX_REFERENCES

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for settings that cannot hold."""
        if not self.buckets or min(self.buckets) < 1 or self.max_references < 1:
            raise ValueError("buckets and max_references must be positive")
        if self.capacity < max(self.buckets):
            raise ValueError(f"capacity {self.capacity} is less than the largest bucket {max(self.buckets)}")

    def with_buckets(self, buckets: tuple[int, ...] | None) -> Self:
        """Return the settings with other buckets, where they are given, and room for twice the largest."""
        if buckets is None:
            return self
        return replace(self, buckets=buckets, capacity=max(self.capacity, 2 * max(buckets)))


@dataclass(frozen=True, slots=True, kw_only=True)
class RowProjection:
    """What a backend computes of a row, once.

    ``text`` gives a prompt's K/V ``[T, D]``, ``reference`` those of a reference of one of the ``adapters``, ``[t, D]``
    with its scales folded in, and ``vectors`` what else the UNet reads, one vector for each name.
    """

    text: Callable[[EncodedPrompt], torch.Tensor]
    reference: Callable[[PlacedReference], torch.Tensor]
    adapters: Collection[str]
    vectors: Callable[[RowConditioning], Mapping[str, torch.Tensor]]

    def kv(
        self, row: RowConditioning, text: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the K/V of a row's prompt, unless they are given, and of all its references.

        Raises ``UnknownAdapterError``.
        """
        for reference in row.references:
            if reference.adapter not in self.adapters:
                raise UnknownAdapterError(reference.adapter, list(self.adapters))
        references = [self.reference(reference) for reference in row.references]
        return self.text(row.prompt) if text is None else text, torch.cat(references) if references else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowBatch:
    """A tick's inputs, padded to its bucket. Padding rows are zero latents at timestep 0.

    ``places`` says where in the batch each asked row lies, ``tokens`` how many reference tokens it brings. ``held``
    names, by position, the content that lies there (``SlotBuffers.contents``). None is padding.
    """

    sample: torch.Tensor
    timestep: torch.Tensor
    kv_text: torch.Tensor
    kv_ip: torch.Tensor
    ip_mask: torch.Tensor | None
    vectors: Mapping[str, torch.Tensor]
    places: list[int]
    tokens: list[int]
    held: list[Hashable | None]

    def rows_of(self, noise: torch.Tensor) -> torch.Tensor:
        """Return the asked rows of the network's output, in the order in which they were asked."""
        return noise if self.places == list(range(noise.shape[0])) else noise[self.places]


def _same(one: PlacedReference, other: PlacedReference) -> bool:
    return one.tokens is other.tokens and (one.adapter, one.scales, one.region) == (
        other.adapter,
        other.scales,
        other.region,
    )


class RegionsUnsupportedError(ValueError):
    """A reference has a region, and what computes knows none."""

    def __init__(self) -> None:
        super().__init__("references with regions do not run on this backend")


@dataclass(frozen=True, slots=True, kw_only=True)
class RowRegions:
    """The masks of one row's references, and how many references they are."""

    references: int
    masks: LevelMasks


class SlottedRows:
    """Rows placed in conditioning buffers, and batches of them.

    ``masks`` gives the masks of a row whose references have regions; without it such rows are refused.
    """

    def __init__(
        self,
        slots: SlotBuffers,
        largest_bucket: int,
        projection: RowProjection,
        masks: Callable[[RowConditioning], LevelMasks] | None = None,
    ) -> None:
        self.slots = slots
        self._largest = largest_bucket
        self._projection = projection
        self._masks = masks
        self._rows: dict[int, RowConditioning] = {}
        """The row of each slot, or its last one: no other object can then pass for its prompt or tokens. It holds them,
        a quarter of a MB a slot with SD 1.5 and half of one with SDXL."""
        self._numbers = count()
        self._regions: dict[int, RowRegions] = {}

    def place(self, row: RowConditioning) -> int:
        """Compute the row's K/V, or take what a slot holds or held last of them, and give the row a slot.

        That is all of it where a row was alike, as for a request of several images or the negative prompt of most
        images, and what comes from the prompt where that was the same.
        Raises ``SlotsExhaustedError``, ``ReferenceTooLongError``, ``UnknownAdapterError`` and
        ``RegionsUnsupportedError``.
        """
        if row.boxes and self._masks is None:
            raise RegionsUnsupportedError
        with torch.inference_mode():
            twin = self._find(lambda placed: self._alike(placed, row))
            if twin is None:
                content: Hashable = next(self._numbers)
                kv_text, kv_ip = self._kv(row)
            else:
                content = self.slots.contents[twin]
                kv_text, kv_ip = self.slots.values(twin)
            regions = None if twin is None else self._regions.get(twin)
            if row.boxes and regions is None and self._masks is not None:
                regions = RowRegions(references=len(row.references), masks=self._masks(row))
            slot = self.slots.place(content, kv_text, kv_ip, self._projection.vectors(row))
        self._rows[slot] = row
        self._regions.pop(slot, None)
        if regions is not None:
            self._regions[slot] = regions
        return slot

    def _find(self, matches: Callable[[RowConditioning], bool]) -> int | None:
        return next(
            (
                slot
                for slot, row in self._rows.items()
                if self.slots.contents[slot] is not None and matches(row)
            ),
            None,
        )

    def _alike(self, one: RowConditioning, other: RowConditioning) -> bool:
        """Whether two rows are conditioned on the very same."""
        return one is other or (
            one.prompt is other.prompt
            and (one.size == other.size or not (self.slots.vectors or one.boxes))
            and (one.guidance_scale == other.guidance_scale or "timestep_cond" not in self.slots.vectors)
            and len(one.references) == len(other.references)
            and all(map(_same, one.references, other.references))
        )

    def _kv(self, row: RowConditioning) -> tuple[torch.Tensor, torch.Tensor | None]:
        same = self._find(lambda placed: placed.prompt is row.prompt)
        return self._projection.kv(row, None if same is None else self.slots.kv_text[same])

    def release(self, slot: int) -> None:
        """Free a slot. Raises ``SlotError`` if it is not taken."""
        self.slots.release(slot)
        self._regions.pop(slot, None)  # larger than the row; a row alike has its own computed again

    def regions(self, slot: int) -> RowRegions | None:
        """Return the regions of a row; None when its references have none."""
        return self._regions.get(slot)

    def region_masks(self, slots: Sequence[int], places: Sequence[int], bucket: int) -> LevelMasks:
        """Return the masks of rows with equally many references, ``[bucket, references, pixels]`` by level."""
        each = [self._regions[slot].masks for slot in slots]
        masks: dict[int, torch.Tensor] = {}
        for level, first in each[0].items():
            masks[level] = first.new_zeros(bucket, *first.shape)
            masks[level][list(places)] = torch.stack([own[level] for own in each])
        return masks

    def by_width(self, slots: Sequence[int], narrow: int) -> list[list[int]]:
        """Part rows into those that bring at most ``narrow`` reference tokens and those that bring more, as indices.

        Rows with regions go by themselves, those of as many references and tokens together. Each group runs in a
        batch of its own, read only as wide as it must be: a row's width, and with it its last bits, do not depend on
        its neighbours. Raises ``SlotError``.
        """
        self.slots.check(slots)
        groups: dict[tuple[int, int], list[int]] = {}
        for index, slot in enumerate(slots):
            tokens, regions = self.slots.tokens[slot], self._regions.get(slot)
            kind = (0, tokens > narrow) if regions is None else (regions.references, tokens)
            groups.setdefault(kind, []).append(index)
        return [groups[kind] for kind in sorted(groups)]

    def batch(
        self,
        slots: Sequence[int],
        sample: torch.Tensor,
        timestep: torch.Tensor,
        bucket: int,
        *,
        seats: Sequence[Sequence[int]] = (),
        units: Sequence[Sequence[int]] = (),
    ) -> RowBatch:
        """Lay out a tick: ``sample [R, C, h, w]`` and ``timestep [R]`` padded to ``bucket``, with their conditioning.

        Rows that go together take ``seats`` that do (``Staging.arrange``), where there are any.
        Raises ``SlotError`` for a slot that is not taken and ``ValueError`` for a bucket that does not fit.
        """
        rows = len(slots)
        if not 0 < rows <= bucket <= self._largest:
            raise ValueError(f"{rows} rows do not fit bucket {bucket}")
        self.slots.check(slots)
        source: SlotBuffers | Staging = self.slots
        places = list(slots)
        if seats or max(slots) >= bucket:
            source = self._staging
            places = self._staging.arrange(slots, seats or single_seats(bucket), units or None)
        held: list[Hashable | None] = [None] * bucket
        for slot, place in zip(slots, places, strict=True):
            held[place] = self.slots.contents[slot]
        batch, steps = sample, timestep
        if rows < bucket or places != list(range(bucket)):
            batch = sample.new_zeros(bucket, *sample.shape[1:])
            batch[places] = sample
            steps = timestep.new_zeros(bucket)
            steps[places] = timestep
        return RowBatch(
            sample=batch,
            timestep=steps,
            kv_text=source.kv_text[:bucket],
            kv_ip=source.kv_ip[:bucket],
            ip_mask=None if source.ip_mask is None else source.ip_mask[:bucket],
            vectors={name: buffer[:bucket] for name, buffer in source.vectors.items()},
            places=places,
            tokens=[self.slots.tokens[slot] for slot in slots],
            held=held,
        )

    @cached_property
    def _staging(self) -> Staging:
        return Staging(self.slots, self._largest)
