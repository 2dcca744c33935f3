"""The compiled tables of one model, kept where the update runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .registry import compile_table
from .schedule import NoiseSchedule
from .table import INPUT_PLANES, STATE_PLANES, SamplerTable

_CELLS = STATE_PLANES * INPUT_PLANES
_WIDTH = _CELLS + 4
_FIRST_CAPACITY = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class BankedTable:
    """Say where a table lies in the bank: its step n is row `first_row + n`."""

    table: SamplerTable
    first_row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCoefficients:
    """Hold what a tick needs of the tables, one entry for each of its B images.

    Attributes:
        matrix: `[B, STATE_PLANES, INPUT_PLANES]`, for `advance`.
        timestep: `[B]`, for the UNet.
        input_scale: `[B]`, for `model_input`.
        x0: `[B, 2]`, for `estimate_x0`.
    """

    matrix: Tensor
    timestep: Tensor
    input_scale: Tensor
    x0: Tensor


class CoefficientBank:
    """Compile each (sampler, steps) once, upload it once, and gather the rows of a tick with one
    index_select.

    Tables are never dropped: with 7 samplers of at most 200 steps all of them together take 14 MB. One
    thread may add tables while another one gathers.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._schedule = schedule
        self._rows = torch.empty(_FIRST_CAPACITY, _WIDTH, device=device, dtype=dtype)
        self._used = 0
        self._entries: dict[tuple[str, int], BankedTable] = {}

    def table(self, name: str, steps: int) -> BankedTable:
        """Return the table's place, after compiling and uploading it if it is new.

        Raises:
            UnknownSamplerError: no such sampler.
            StepsOutOfRangeError: `steps` is outside the sampler's limits.
        """
        entry = self._entries.get((name, steps))
        if entry is None:
            table = compile_table(name, steps, self._schedule)
            entry = BankedTable(table=table, first_row=self._append(_pack(table)))
            self._entries[name, steps] = entry
        return entry

    def gather(self, rows: Tensor) -> StepCoefficients:
        """Return the coefficients at `rows`, `[B]` int64 on the bank's device: `first_row + step` of each
        image.
        """
        picked = self._rows.index_select(0, rows)
        return StepCoefficients(
            matrix=picked[:, :_CELLS].view(-1, STATE_PLANES, INPUT_PLANES),
            timestep=picked[:, _CELLS],
            input_scale=picked[:, _CELLS + 1],
            x0=picked[:, _CELLS + 2 :],
        )

    def _append(self, packed: NDArray[np.float64]) -> int:
        first, end = self._used, self._used + len(packed)
        if end > len(self._rows):
            grown = self._rows.new_empty(max(end, 2 * len(self._rows)), _WIDTH)
            grown[:first] = self._rows[:first]
            self._rows = grown
        self._rows[first:end] = torch.from_numpy(packed).to(self._rows.dtype)
        self._used = end
        return first


def _pack(table: SamplerTable) -> NDArray[np.float64]:
    columns = (
        table.matrix.reshape(table.steps, -1),
        table.timesteps[:, None],
        table.input_scale[:, None],
        table.x0,
    )
    return np.concatenate(columns, axis=1, dtype=np.float64)
