"""Train UNet, IP-Adapter and towers together, and keep the checkpoints."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
import torch

from engine.embedded.recipe.batches import Batches
from engine.embedded.recipe.ema import Ema, load_checkpoint, save_checkpoint
from engine.embedded.recipe.joint import JointModel
from engine.embedded.recipe.progress import Progress
from engine.embedded.recipe.workers import Crew

UNET_RATE = 1e-3
TOWER_RATE = 5e-4
# The towers' loss reaches only the towers; this weighs it against the diffusion loss, which reaches them too.
TOWER_WEIGHT = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionPlan:
    """Say how long and how wide to train."""

    minutes: float
    batch: int = 32
    seed: int = 3
    checkpoint_minutes: float = 5.0


def train_diffusion(
    crew: Crew,
    plan: DiffusionPlan,
    directory: Path,
    model: JointModel,
    batches: Batches,
    on_checkpoint: Callable[[dict[str, torch.Tensor]], None],
) -> None:
    """Train for a wall-clock budget; the weight average ends in `directory/unet.pt`.

    `on_checkpoint` gets the averaged weights, in the leading worker only.
    """
    path, ema = directory / "unet.pt", Ema(model, 0.998)
    unet_parameters, tower_parameters = list(model.adapted.parameters()), model.tower_parameters()
    groups = [
        {"params": unet_parameters, "peak": UNET_RATE},
        {"params": tower_parameters, "peak": TOWER_RATE},
    ]
    optimiser = torch.optim.AdamW(groups, lr=UNET_RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    progress = Progress(name="unet", minutes=plan.minutes, directory=directory)
    if state := load_checkpoint(path):
        model.load_state_dict(state["model"])
        ema.load(state["ema"])
        optimiser.load_state_dict(state["optimiser"])
        progress.step, progress.spent_seconds = state["step"], state["seconds"]
    torch.manual_seed(1000 * (progress.step + 1) + crew.rank)
    batches = replace(
        batches,
        random=np.random.default_rng([plan.seed, progress.step, crew.rank]),
        words=Random(1000 * (progress.step + 1) + crew.rank),
    )
    saved = time.monotonic()
    for _ in progress.steps(quiet=not crew.leads):
        diffusion, towers = model(batches.next(plan.batch // crew.size))
        optimiser.zero_grad(set_to_none=True)
        (diffusion + TOWER_WEIGHT * towers).backward()
        progress.share = crew.exchange(model, progress.clock_share())
        for group in optimiser.param_groups:
            group["lr"] = progress.rate(group["peak"], warmup_steps=100)
        torch.nn.utils.clip_grad_norm_(unet_parameters, 1.0)
        torch.nn.utils.clip_grad_norm_(tower_parameters, 0.3)
        optimiser.step()
        if not crew.leads:
            continue
        ema.update(model)
        progress.record(float(diffusion.detach()), every=10)
        if progress.step % 200 == 0:
            print(f"\nunet step {progress.step}: towers {float(towers.detach()):.3f}", flush=True)
        if time.monotonic() - saved > 60 * plan.checkpoint_minutes or progress.share >= 1.0:
            saved = time.monotonic()
            state = {"model": model.state_dict(), "ema": ema.state(), "optimiser": optimiser.state_dict()}
            save_checkpoint(path, {**state, "step": progress.step + 1, "seconds": progress.elapsed()})
            on_checkpoint(ema.weights)
