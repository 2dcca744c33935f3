"""Ticks in which the rows of each image share what they have in common, where that changes no bit."""

from __future__ import annotations

from collections.abc import Sequence

import structlog
import torch

from engine.backends.compiled.graphs import Graphs
from engine.backends.compiled.runtime import Pairs, Tensors
from engine.export.errors import GraphCompileError

log = structlog.get_logger()

TIMESTEPS = 1000
"""Of the noise on which both are tried: 0 to so many."""


class SharedTrunk:
    """The UNet of one bucket that computes once what two rows of an image have in common.

    The bucket has its other UNet as well, for ticks in which too many images have one row. A row's bits may not depend
    on which of them runs. So the bucket's first tick, which is warm-up's, decides: if it could share, both run on the
    same noise, and where they differ, as a compiler is free to fuse what it likes, the bucket never shares.
    """

    def __init__(self, graphs: Graphs, bucket: int, seats: Pairs) -> None:
        self._graphs = graphs
        self._bucket = bucket
        self.seats = seats
        """Positions that share; none where nothing does."""
        self._decided = False

    def units(self, images: Sequence[int] | None, bucket: int) -> list[list[int]]:
        """Return the rows of each image, or nothing where a tick of these rows does not share.

        ``images`` says which image each row is of, where that is known; an image of one row leaves half of its seat
        empty.
        """
        if images is None or bucket != self._bucket:
            return []
        of: dict[int, list[int]] = {}
        for row, image in enumerate(images):
            of.setdefault(image, []).append(row)
        units = list(of.values())
        return units if len(units) < len(images) and len(units) <= len(self.seats) else []

    def paired(self, bucket: int, units: Sequence[Sequence[int]], inputs: Tensors) -> bool:
        """Say whether a tick of these units runs in the shared UNet; ``inputs`` show its shapes.

        The bucket's first tick compiles and runs both. Raises what that raises, and decides nothing then.
        """
        if self.seats and not self._decided and bucket == self._bucket:
            if not units or not self._agree(_noise(inputs, self.seats)):
                self.seats = ()
            self._decided = True
        return bool(units and self.seats)

    def _agree(self, inputs: Tensors) -> bool:
        rows = self._bucket
        try:
            shared = self._graphs.run("unet", inputs, paired=True)["noise"]
        except GraphCompileError as error:
            log.warning("no UNet whose rows share a trunk can be compiled", rows=rows, error=str(error))
            return False
        if torch.equal(shared, self._graphs.run("unet", inputs)["noise"]):
            return True
        self._graphs.forget("unet", inputs, paired=True)
        log.warning("two rows of an image do not share a trunk: it would change their last bits", rows=rows)
        return False


def _noise(inputs: Tensors, pairs: Pairs) -> dict[str, torch.Tensor]:
    """Return inputs of these shapes: noise, alike within a pair where an image's rows are, and nothing masked."""
    generator = torch.Generator().manual_seed(0)
    drawn = {
        name: torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
        for name, tensor in inputs.items()
    }
    drawn["timestep"] = TIMESTEPS * torch.rand(inputs["timestep"].shape, generator=generator)
    drawn["ip_mask"] = torch.zeros_like(inputs["ip_mask"])
    first, second = (list(positions) for positions in zip(*pairs, strict=True))
    for name in ("sample", "timestep"):
        drawn[name][second] = drawn[name][first]
    return drawn
