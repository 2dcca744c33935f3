"""Share a training step between single-threaded worker processes, or take it whole on a GPU."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.attention import SDPBackend, sdpa_kernel

_ENLARGE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """Hold one worker's place among those that train together.

    Workers meet once a step. On a shared machine that loses far less than threads do, which wait for the
    slowest at every operator: with one foreign process busy, a step on two threads took ten times longer.

    A GPU is one worker. Its steps cost almost the same for one row as for a hundred, so it takes `enlarge` times
    a stage's rows.
    """

    rank: int
    size: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    enlarge: int = 1

    @property
    def leads(self) -> bool:
        """Tell whether this worker keeps the clock, the average and the checkpoints."""
        return self.rank == 0

    def rows(self, batch: int) -> int:
        """Return how many rows of a stage's batch this worker takes."""
        return batch * self.enlarge // self.size

    @contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Compute in bfloat16; on a CPU with plain attention.

        There the fused kernel's backward pass is slow for short sequences: without it a step takes a fifth less.
        """
        attention = sdpa_kernel(SDPBackend.MATH) if self.device.type == "cpu" else nullcontext()
        with torch.autocast(self.device.type, torch.bfloat16), attention:
            yield

    def exchange(self, model: nn.Module, share: float) -> float:
        """Average the gradients over all workers, in place; return the leader's `share` of the budget."""
        if self.size == 1:
            return share
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        told = share * self.size if self.leads else 0.0
        flat = torch.cat([g.flatten() for g in gradients] + [torch.tensor([told])])
        dist.all_reduce(flat)
        flat /= self.size
        parts = flat[:-1].split([g.numel() for g in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
        return float(flat[-1])

    def gather(self, parts: list[Tensor | None], like: list[nn.Parameter]) -> list[Tensor]:
        """Return every worker's parts; exactly one worker brings each, and `like` gives the shapes.

        A part that nobody brings comes back as zeros.
        """
        filled = [torch.zeros_like(p) if part is None else part for part, p in zip(parts, like, strict=True)]
        if self.size == 1:
            return filled
        flat = torch.cat([part.flatten() for part in filled])
        dist.all_reduce(flat)
        split = flat.split([p.numel() for p in like])
        return [part.view_as(p) for part, p in zip(split, like, strict=True)]

    def wait(self) -> None:
        """Return when every worker has come here."""
        if self.size > 1:
            dist.barrier()


def run_crew(work: Callable[[Crew], None], *, size: int, directory: Path, device: str = "cpu") -> None:
    """Call `work` in `size` processes at once, each with one thread, and wait; a failure of one ends all.

    On a device other than the CPU it is called once, here. `work` is pickled: a module-level function or a
    `functools.partial` of one.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if device != "cpu":
        work(Crew(rank=0, size=1, device=torch.device(device), enlarge=_ENLARGE))
        return
    meeting = directory / f"rendezvous-{os.getpid()}"
    if size == 1:
        torch.set_num_threads(1)
        work(Crew(rank=0, size=1))
    else:
        arguments = (work, size, str(meeting.resolve()))
        try:
            spawn(_enter, args=arguments, nprocs=size)
        finally:
            meeting.unlink(missing_ok=True)


def _enter(rank: int, work: Callable[[Crew], None], size: int, meeting: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
    crew = Crew(rank=rank, size=size)
    try:
        work(crew)
        # Nobody leaves before all are done: gloo aborts a process whose threads still talk to one that is gone.
        crew.wait()
    finally:
        dist.destroy_process_group()
