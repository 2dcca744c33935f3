"""The row-level guard: a fault that belongs to one item costs that item alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from engine.backends.base import Backend, LatentShape, RowConditioning

from .errors import BackendBrokenError, Fault

T = TypeVar("T")
R = TypeVar("R")


def singled_out(
    items: Sequence[T], run: Callable[[Sequence[T]], Sequence[R]], works: Callable[[], bool]
) -> list[R | Fault]:
    """Run a batch; if it raises, run its items one by one. Return each item's result, or its fault.

    Raises ``BackendBrokenError`` when every result is a fault, raised or returned, and ``works`` says that nothing
    else runs either.
    """
    raised: Exception | None = None
    results: list[R | Fault]
    try:
        results = list(run(items))
    except Exception as error:
        raised = error
        results = [Fault.of(error)] if len(items) == 1 else [_alone(item, run) for item in items]
    faults = [result for result in results if isinstance(result, Fault)]
    if faults and len(faults) == len(results) and not works():
        raise BackendBrokenError(faults[0].message) from raised
    return results


def _alone(item: T, run: Callable[[Sequence[T]], Sequence[R]]) -> R | Fault:
    try:
        (result,) = run([item])
    except Exception as error:
        return Fault.of(error)
    return result


def all_finite(values: torch.Tensor) -> torch.Tensor:
    """Return ``[B]`` bool: whether every number of each item of ``[B, ...]`` is finite. Waits for nothing."""
    return values.flatten(1).abs().amax(1) < torch.inf


class Probe:
    """Ask whether the backend still does all that the loop asks of it, on inputs that are known to be good.

    It tells a bad request from a broken device: after everything in a batch has failed, the process dies
    only if this fails too. Holds one slot for ever, so that asking needs no free one. ``shape`` should be
    one that ran at warm-up.
    """

    def __init__(self, backend: Backend, shape: LatentShape) -> None:
        self._backend = backend
        self._shape = shape
        (prompt,) = backend.encode_prompts([""])
        self._slot = backend.place(RowConditioning(prompt=prompt))

    def works(self) -> bool:
        """Run each part of the backend once."""
        try:
            return all(bool(torch.isfinite(output).all()) for output in self._outputs())
        except Exception:
            return False

    def _outputs(self) -> list[torch.Tensor]:
        backend, facts = self._backend, self._backend.facts
        sample = torch.zeros(1, *self._shape, device=backend.device)
        timestep = torch.zeros(1, device=backend.device)
        outputs = [
            *(prompt.embedding for prompt in backend.encode_prompts([""])),
            backend.predict_noise([self._slot], sample, timestep, backend.buckets(self._shape)[0]),
            backend.decode_latents(sample),
        ]
        if facts.adapters:
            size = facts.reference_size
            outputs.append(backend.encode_images(torch.full((1, size, size, 3), 128, dtype=torch.uint8)))
        return outputs
