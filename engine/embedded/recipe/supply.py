"""Draw batches ahead of the step that needs them: a GPU's step is shorter than the writing of its captions."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from engine.embedded.recipe.training import Start
from engine.embedded.recipe.workers import Crew

_PROCESSES = 6

# A tuple of tensors, on the CPU.
Batch = TypeVar("Batch")
DrawFrom = Callable[[Start], Callable[[], Batch]]


def supply(crew: Crew, start: Start, draw_from: DrawFrom[Batch]) -> Callable[[], Batch]:
    """Return a function that gives the next batch; `draw_from` returns the one that draws it.

    On a CPU a batch is drawn when it is asked for. For a GPU, processes draw ahead, each as a worker of its own.
    """
    if crew.device.type == "cpu":
        return draw_from(start)
    loader = DataLoader(
        _Endless(start, draw_from),
        batch_size=None,
        num_workers=_PROCESSES,
        prefetch_factor=8,
        multiprocessing_context="fork",
    )
    batches = iter(loader)
    return lambda: next(batches)


class _Endless(IterableDataset[Batch]):
    def __init__(self, start: Start, draw_from: DrawFrom[Batch]) -> None:
        self._start, self._draw_from = start, draw_from

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        rank = 0 if worker is None else worker.id
        torch.set_num_threads(1)
        draw = self._draw_from(Start(self._start.step, self._start.rank + rank))
        while True:
            yield draw()
