"""Drive one stage of the recipe: budget, optimiser, weight average, checkpoints."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.embedded.recipe.ema import Ema, load_checkpoint, save_checkpoint, trained_state
from engine.embedded.recipe.muon import MuonAdamW
from engine.embedded.recipe.progress import Progress
from engine.embedded.recipe.workers import Crew


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Say how one stage trains; its checkpoint, curve and sheet are named after it.

    `minutes` is the wall-clock budget, earlier runs included. Rates are the peaks: warm-up over the first
    steps, then a cosine to zero over the budget. Each worker draws with its own seed.
    """

    name: str
    directory: Path
    minutes: float
    matrix_rate: float
    vector_rate: float
    average: float = 0.998
    warmup_steps: int = 50
    checkpoint_minutes: float = 4.0
    record_every: int = 25

    @property
    def checkpoint(self) -> Path:
        """Return where the stage keeps its state."""
        return self.directory / f"{self.name}.pt"


@dataclass(frozen=True, slots=True)
class Start:
    """Tell a stage's loss where a run begins, so that a resumed run draws other batches."""

    step: int
    rank: int


def train(
    crew: Crew,
    plan: Plan,
    model: nn.Module,
    loss_from: Callable[[Start], Callable[[], Tensor]],
    report: Callable[[dict[str, Tensor], Progress], None],
) -> None:
    """Train the parameters that need gradients until the budget is spent; continue from a checkpoint if there is one.

    A checkpoint holds nothing of frozen parameters, so that an adapter continues beside a UNet that was trained on.

    `loss_from` is called once, after any checkpoint was loaded, and returns the function that computes the
    loss of one step, on the crew's device. `report` gets the averaged weights at each checkpoint, on the CPU, in
    the leading worker only.
    """
    model.to(crew.device)
    ema = Ema(model, plan.average)
    optimiser = MuonAdamW(model, matrix_rate=plan.matrix_rate, vector_rate=plan.vector_rate)
    progress = Progress(name=plan.name, minutes=plan.minutes, directory=plan.directory)
    if state := load_checkpoint(plan.checkpoint):
        own = trained_state(model)
        model.load_state_dict({k: v for k, v in state["model"].items() if k in own}, strict=False)
        ema.load(state["ema"])
        optimiser.load(state["optimiser"])
        progress.step, progress.spent_seconds = state["step"], state["seconds"]
    torch.manual_seed(1000 * (progress.step + 1) + crew.rank)
    loss_of = loss_from(Start(progress.step, crew.rank))
    trained = [p for p in model.parameters() if p.requires_grad]
    saved = time.monotonic()
    for _ in progress.steps(quiet=not crew.leads):
        loss = loss_of()
        optimiser.zero_grad()
        loss.backward()
        progress.share = crew.exchange(model, progress.clock_share())
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step(crew, progress.rate(1.0, warmup_steps=plan.warmup_steps))
        if not crew.leads:
            continue
        ema.update(model)
        progress.record(float(loss.detach()), every=plan.record_every)
        if time.monotonic() - saved > 60 * plan.checkpoint_minutes or progress.share >= 1.0:
            saved = time.monotonic()
            state = {"model": trained_state(model), "ema": ema.state(), "optimiser": optimiser.state()}
            save_checkpoint(
                plan.checkpoint, {**state, "step": progress.step + 1, "seconds": progress.elapsed()}
            )
            report({name: value.cpu() for name, value in ema.weights.items()}, progress)


def averaged(checkpoint: Path) -> dict[str, Tensor]:
    """Return a stage's averaged weights; raises StageMissingError when the stage has not run."""
    state = load_checkpoint(checkpoint)
    if state is None:
        raise StageMissingError(f"train the {checkpoint.stem} stage first: no {checkpoint}")
    weights: dict[str, Tensor] = state["ema"]["weights"]
    return weights


class StageMissingError(RuntimeError):
    """Say that a stage was asked for before one that it builds on."""
