"""Rows in slots: what every backend does between ``place`` and ``predict_noise``, whatever computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from engine.backends.base import RowConditioning
from engine.backends.slots import SlotBuffers, Staging

Project = Callable[[RowConditioning], tuple[torch.Tensor, torch.Tensor | None]]
"""Computes a row's K/V: of its prompt ``[T, D]``, and of its reference ``[tokens, D]`` with the scale folded in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowBatch:
    """A tick's inputs, padded to its bucket. Padding rows are zero latents at timestep 0."""

    sample: torch.Tensor
    timestep: torch.Tensor
    kv_text: torch.Tensor
    kv_ip: torch.Tensor
    ip_mask: torch.Tensor | None
    positions: list[int] | None
    """Where in the batch each asked row lies; None where the batch is the rows that were asked for, in order."""

    def rows_of(self, noise: torch.Tensor) -> torch.Tensor:
        """Return the asked rows of the network's output, in the order in which they were asked."""
        return noise if self.positions is None else noise[self.positions]


class SlottedRows:
    """Rows placed in conditioning buffers, and batches of them."""

    def __init__(self, slots: SlotBuffers, largest_bucket: int, project: Project) -> None:
        self._slots = slots
        self._largest = largest_bucket
        self._project = project
        self._rows: dict[int, RowConditioning] = {}
        self._staging = Staging(slots, largest_bucket)

    def place(self, row: RowConditioning) -> int:
        """Compute the row's K/V, or copy them from a slot that holds this very row, and write them to a free slot.

        Raises ``SlotsExhaustedError``, ``ReferenceTooLongError``, and what the projection raises.
        """
        with torch.inference_mode():
            twin = next((slot for slot, placed in self._rows.items() if placed is row), None)
            kv_text, kv_ip = self._project(row) if twin is None else self._slots.values(twin, _tokens(row))
            slot = self._slots.place(kv_text, kv_ip)
        self._rows[slot] = row
        return slot

    def release(self, slot: int) -> None:
        """Free a slot. Raises ``SlotError`` if it is not taken."""
        self._slots.release(slot)
        del self._rows[slot]

    def batch(
        self, slots: Sequence[int], sample: torch.Tensor, timestep: torch.Tensor, bucket: int
    ) -> RowBatch:
        """Lay out a tick: ``sample [R, C, h, w]`` and ``timestep [R]`` padded to ``bucket``, with their conditioning.

        Raises ``SlotError`` for a slot that is not taken and ``ValueError`` for a bucket that does not fit.
        """
        rows = len(slots)
        if not 0 < rows <= bucket <= self._largest:
            raise ValueError(f"{rows} rows do not fit bucket {bucket}")
        self._slots.check(slots)
        source: SlotBuffers | Staging = self._slots
        positions = list(slots)
        if max(slots) >= bucket:
            source = self._staging
            positions = source.arrange(slots, bucket)
        in_place = rows == bucket and positions == list(range(bucket))
        batch, steps = sample, timestep
        if not in_place:
            batch = sample.new_zeros(bucket, *sample.shape[1:])
            batch[positions] = sample
            steps = timestep.new_zeros(bucket)
            steps[positions] = timestep
        return RowBatch(
            sample=batch,
            timestep=steps,
            kv_text=source.kv_text[:bucket],
            kv_ip=source.kv_ip[:bucket],
            ip_mask=None if source.ip_mask is None else source.ip_mask[:bucket],
            positions=None if in_place else positions,
        )


def _tokens(row: RowConditioning) -> int:
    return 0 if row.reference_tokens is None else row.reference_tokens.shape[0]
